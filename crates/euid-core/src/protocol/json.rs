//! JSON as the operator reads it: a stricter parser than most, with three exceptions.
//!
//! 1. Comments (`/* … */` and `// …`) count as white space.
//! 2. Bytes that are not UTF-8 become U+FFFD; an escaped surrogate without its other half becomes `?`.
//! 3. Nesting goes to [`MAX_DEPTH`], numbers to [`MAX_NUMBER`], names of members to [`MAX_NAME`].

use std::str::Chars;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// Reads an object; `None` if `json` is anything else, or more than one value.
pub fn object(json: &[u8]) -> Option<Map<String, Value>> {
    let text = String::from_utf8_lossy(json);
    let mut reader = Reader { rest: &text, depth: 0 };
    let value = reader.value()?;
    reader.skip_white_space()?;
    match value {
        Value::Object(object) if reader.rest.is_empty() => Some(object),
        _ => None,
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn value(&mut self) -> Option<Value> {
        self.skip_white_space()?;
        match self.rest.as_bytes().first()? {
            b'{' => self.nested(Self::members).map(Value::Object),
            b'[' => self.nested(Self::elements).map(Value::Array),
            b'"' => self.string().map(Value::String),
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                let words = [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)];
                words.into_iter().find_map(|(word, value)| self.take(word).map(|()| value))
            }
        }
    }

    fn nested<T>(&mut self, read: fn(&mut Self) -> Option<T>) -> Option<T> {
        self.depth += 1;
        let value = if self.depth > MAX_DEPTH { None } else { read(self) };
        self.depth -= 1;
        value
    }

    fn members(&mut self) -> Option<Map<String, Value>> {
        let mut members = Map::new();
        self.separated("{", "}", |reader| {
            let name = reader.string().filter(|name| name.chars().count() <= MAX_NAME)?;
            reader.skip_white_space()?;
            reader.take(":")?;
            members.insert(name, reader.value()?);
            Some(())
        })?;
        Some(members)
    }

    fn elements(&mut self) -> Option<Vec<Value>> {
        let mut elements = Vec::new();
        self.separated("[", "]", |reader| {
            elements.push(reader.value()?);
            Some(())
        })?;
        Some(elements)
    }

    /// Reads items with commas between them; none after the last.
    fn separated(&mut self, open: &str, close: &str, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(open)?;
        self.skip_white_space()?;
        if self.take(close).is_some() {
            return Some(());
        }
        loop {
            self.skip_white_space()?;
            item(self)?;
            self.skip_white_space()?;
            if self.take(close).is_some() {
                return Some(());
            }
            self.take(",")?;
        }
    }

    fn string(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut text = String::new();
        let mut characters = self.rest.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => text.push(unescape(&mut characters)?),
                '\0'..' ' => return None,
                other => text.push(other),
            }
        }
        self.rest = characters.as_str();
        Some(text)
    }

    /// A number that a [`Value`] can't hold becomes its digits, which is how the operator reads it as text.
    fn number(&mut self) -> Option<Value> {
        let length = self.rest.find(|character| !matches!(character, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
        let (digits, rest) = self.rest.split_at(length.unwrap_or(self.rest.len()));
        if digits.trim_start_matches('-').len() > MAX_NUMBER || serde_json::from_str::<IgnoredAny>(digits).is_err() {
            return None;
        }
        self.rest = rest;
        if let Ok(integer) = digits.parse::<i64>() {
            return Some(Value::from(integer));
        }
        let fraction = digits.contains(['.', 'e', 'E']).then(|| digits.parse::<f64>().ok()).flatten();
        let fraction = fraction.filter(|fraction| fraction.is_finite());
        Some(fraction.map_or_else(|| Value::String(digits.to_owned()), Value::from))
    }

    /// `None` if a comment has no end.
    fn skip_white_space(&mut self) -> Option<()> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
            if self.take("/*").is_some() {
                self.rest = self.rest.split_once("*/")?.1;
            } else if self.take("//").is_some() {
                self.rest = self.rest.trim_start_matches(|character| !matches!(character, '\r' | '\n'));
            } else {
                return Some(());
            }
        }
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }
}

/// The character that an escape stands for, read from behind its backslash.
fn unescape(characters: &mut Chars<'_>) -> Option<char> {
    Some(match characters.next()? {
        literal @ ('"' | '\\' | '/') => literal,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let unit = unit(characters)?;
            match char::from_u32(unit.into()) {
                Some(character) => character,
                None => second_half(unit, characters).unwrap_or('?'),
            }
        }
        _ => return None,
    })
}

/// The character of a surrogate pair; takes nothing if the other half does not follow.
fn second_half(high: u16, characters: &mut Chars<'_>) -> Option<char> {
    let mut ahead = characters.clone();
    let low = (ahead.next()? == '\\' && ahead.next()? == 'u').then(|| unit(&mut ahead)).flatten()?;
    let character = char::decode_utf16([high, low]).next()?.ok()?;
    *characters = ahead;
    Some(character)
}

fn unit(characters: &mut Chars<'_>) -> Option<u16> {
    (0..4).try_fold(0, |unit, _| Some(unit << 4 | u16::try_from(characters.next()?.to_digit(16)?).ok()?))
}

/// The most arrays and objects that may be around a value.
const MAX_DEPTH: usize = 1000;
/// The most characters that a number may have, without its sign.
const MAX_NUMBER: usize = 1000;
/// The most characters that the name of a member may have.
const MAX_NAME: usize = 50_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member_text(json: &str, member: &str) -> Option<String> {
        object(json.as_bytes())?.get(member)?.as_str().map(str::to_owned)
    }

    #[test]
    fn json_comments_count_as_white_space() {
        for json in [
            r#"/*c*/{"a":"b"}"#,
            r#"{"a":"b"}//c"#,
            "{//c\r\"a\":\"b\"}",
            r#"{/**/"a"/***/:/* * / */"b"/* /* */}"#,
            "{\"x\":[1,/*c*/2//c\n],\"a\":\"b\"}",
        ] {
            assert_eq!(member_text(json, "a").as_deref(), Some("b"), "{json}");
        }
        assert_eq!(member_text(r#"{"a":"/*b*/"}"#, "a").as_deref(), Some("/*b*/"), "not inside a string");
        for json in [r#"{"a":"b"}/*c"#, r#"{"a":"b" / }"#, r##"#c{"a":"b"}"##, "{\"a\":\"b\"}//c\r{}"] {
            assert_eq!(object(json.as_bytes()), None, "{json}");
        }
    }

    #[test]
    fn invalid_json_is_refused() {
        for json in [
            "",
            " ",
            "5",
            "[{}]",
            "{}{}",
            "{}x",
            "{\"a\":1,}",
            "{,\"a\":1}",
            "{\"a\":[1,]}",
            "{\"a\" 1}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":+1}",
            "{\"a\":-}",
            "{\"a\":NaN}",
            "{\"a\":nullx}",
            "{\"a\":1x}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\u+123\"}",
            "{\"a\"",
            "{\"a\":\"",
            "\u{feff}{}",
        ] {
            assert_eq!(object(json.as_bytes()), None, "{json}");
        }
    }

    #[test]
    fn json_bytes_and_surrogates_that_are_not_characters_are_replaced() {
        assert_eq!(object(b"{\"a\":\"b\xff@c\"}").unwrap()["a"], "b\u{fffd}@c");
        for (escaped, text) in [
            (r"\u0040", "@"),
            (r"\ud83d\ude00", "😀"),
            (r"\ud800", "?"),
            (r"\ud800\u0041", "?A"),
            (r"\ude00\ud83d", "??"),
            (r"\ud800\ud83d\ude00", "?😀"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
        ] {
            assert_eq!(member_text(&format!("{{\"a\":\"{escaped}\"}}"), "a").as_deref(), Some(text), "{escaped}");
        }
    }

    #[test]
    fn json_nesting_numbers_and_names_have_the_operators_limits() {
        let arrays = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let objects = |depth| format!("{}{}", "{\"a\":".repeat(depth), "1") + &"}".repeat(depth);
        let digits = |count| format!("{{\"a\":-{}}}", "9".repeat(count));
        let name = |count| format!("{{\"{}\":1}}", "n".repeat(count));
        for (within, beyond) in [
            (arrays(MAX_DEPTH - 1), arrays(MAX_DEPTH)),
            (objects(MAX_DEPTH), objects(MAX_DEPTH + 1)),
            (digits(MAX_NUMBER), digits(MAX_NUMBER + 1)),
            (name(MAX_NAME), name(MAX_NAME + 1)),
        ] {
            let read = object(within.as_bytes()).unwrap();
            assert!(!Value::Object(read).to_string().is_empty());
            assert_eq!(object(beyond.as_bytes()), None);
        }
    }

    #[test]
    fn json_number_too_large_for_a_value_keeps_its_digits() {
        let read = object(br#"{"a":11111111111111111111111111111111111111111111,"b":1e999,"c":-7,"d":1.5}"#).unwrap();
        assert_eq!(read["a"], "1".repeat(44));
        assert_eq!(read["b"], "1e999");
        assert_eq!((read["c"].as_i64(), read["d"].as_f64()), (Some(-7), Some(1.5)));
    }

    proptest! {
        #[test]
        fn json_of_serde_json_is_read_back(members in prop::collection::btree_map(any::<String>(), json(), 0..6)) {
            let written: Map<String, Value> = members.into_iter().collect();
            let text = serde_json::to_string_pretty(&written).unwrap();
            prop_assert_eq!(object(text.as_bytes()), Some(written));
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(|fraction: f64| Value::from(fraction.trunc() + 0.5)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }
}
