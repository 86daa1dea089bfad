//! The check of operators up to 5.65: generate needs a member `optout_check`, or else `policy`, that is 1.

use serde_json::{Map, Value};

use super::answer::Answer;

pub(crate) fn check(payload: &Map<String, Value>) -> Result<(), Answer> {
    let required = "Required opt-out policy argument for token/generate is missing or not set to 1";
    let Some(policy) = payload.get("optout_check").or_else(|| payload.get("policy")) else {
        return Err(Answer::client_error(required));
    };
    match integer(policy) {
        Some(1) => Ok(()),
        Some(0) => Err(Answer::client_error(required)),
        Some(_) => Err(Answer::client_error("request body contains invalid argument(s)")),
        None => Err(Answer::unknown("Unknown error while generating token v2")),
    }
}

/// As Java's `Number.intValue`: the low 32 bits of an integer, a fraction without its decimals.
fn integer(value: &Value) -> Option<i32> {
    match (value.as_i64(), value.as_f64()) {
        (Some(integer), _) => Some(integer as i32),
        (None, Some(fraction)) => Some(fraction as i32),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(payload: Value) -> Option<(u16, String)> {
        let Value::Object(payload) = payload else { panic!("not an object") };
        let answer = check(&payload).err()?;
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        Some((answer.status().as_u16(), body["message"].as_str().unwrap_or_default().to_owned()))
    }

    #[test]
    fn optout_check_accepts_one_as_integer_or_fraction() {
        for value in [json!(1), json!(1.0), json!(1.5), json!(4_294_967_297_i64)] {
            assert_eq!(refusal(json!({ "optout_check": value })), None, "{value}");
            assert_eq!(refusal(json!({ "policy": value })), None, "{value}");
        }
    }

    #[test]
    fn optout_check_refuses_other_values_with_the_operators_messages() {
        let required = "Required opt-out policy argument for token/generate is missing or not set to 1";
        for value in [json!(0), json!(0.9), json!(-0.5)] {
            assert_eq!(refusal(json!({ "policy": value })), Some((400, required.to_owned())), "{value}");
        }
        for value in [json!(2), json!(-1), json!(1e30)] {
            let message = "request body contains invalid argument(s)".to_owned();
            assert_eq!(refusal(json!({ "policy": value })), Some((400, message)), "{value}");
        }
        for value in [json!("1"), json!(true), json!(null), json!([1]), json!({})] {
            let message = "Unknown error while generating token v2".to_owned();
            assert_eq!(refusal(json!({ "policy": value })), Some((500, message)), "{value}");
        }
        assert_eq!(refusal(json!({})), Some((400, required.to_owned())));
    }

    #[test]
    fn optout_check_beats_policy_if_both_are_present() {
        assert_eq!(refusal(json!({ "optout_check": 1, "policy": "x" })), None);
        assert!(refusal(json!({ "optout_check": 0, "policy": 1 })).is_some());
    }
}
