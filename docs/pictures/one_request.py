"""The pictures of one request, of the identity that it brings, and of where that is kept."""

from canvas import Picture


def front():
    picture = Picture(
        "front",
        280,
        "A page with tower-euid",
        "A browser or app sends sealed cookies or headers. EuidLayer opens them and gives the handler an Euid and an "
        "AdvertisingToken. The handler puts the token into the bid request. It returns an EuidUpdate at a login or logout, and "
        "EuidLayer sets the cookies or headers. EuidLayer calls the operator for a refresh, only when due, in a task of its "
        "own. The handler of a login calls the operator with generate.",
    )
    picture.box(14, 22, 104, 128, "# browser", "# or app")
    picture.box(250, 22, 130, 128, "# EuidLayer", "opens and seals", "the token pair", kind="layer")
    picture.box(512, 22, 100, 128, "# your", "# handler", kind="site")
    picture.box(652, 22, 94, 128, "# bid", "# request", "with the", "token", kind="site")
    picture.box(250, 212, 362, 46, "# operator", "issues and refreshes identities", kind="operator")
    picture.arrow((118, 68), (250, 68))
    picture.text(184, 43, "sealed cookies", "or headers", anchor="middle")
    picture.arrow((250, 128), (118, 128))
    picture.text(184, 103, "`Set-Cookie`", "or headers", anchor="middle")
    picture.arrow((380, 68), (512, 68))
    picture.text(446, 43, "`Euid`,", "`AdvertisingToken`", anchor="middle")
    picture.arrow((512, 128), (380, 128))
    picture.text(446, 103, "`EuidUpdate`:", "login, logout", anchor="middle")
    picture.arrow((612, 86), (652, 86))
    picture.arrow((315, 150), (315, 212), both=True)
    picture.text(325, 177, "refresh, only when due,", "in a task of its own")
    picture.arrow((562, 150), (562, 212), both=True)
    picture.text(572, 177, "`generate`,", "at a login")
    return picture


def layers():
    picture = Picture(
        "layers",
        506,
        "The order of layers",
        "From the outermost to the innermost: response cache or CDN, SetSensitiveRequestHeadersLayer, TraceLayer, "
        "CompressionLayer, CorsLayer, RequestBodyLimitLayer, CsrfLayer, session layer, the middleware that puts the signed-in "
        "user into the request, EuidLayer, CatchPanicLayer, TimeoutLayer, SetResponseHeaderLayer for Cache-Control, handler. "
        "Outside is what the hooks of EuidLayer need. Inside is what answers in place of a handler, or changes Cache-Control.",
    )
    rows = [
        "response cache, CDN",
        "`SetSensitiveRequestHeadersLayer`",
        "`TraceLayer`",
        "`CompressionLayer`",
        "`CorsLayer`",
        "`RequestBodyLimitLayer`",
        "`CsrfLayer`",
        "session layer",
        "signed-in user into the request",
        "# EuidLayer",
        "`CatchPanicLayer`",
        "`TimeoutLayer`",
        "`SetResponseHeaderLayer`, `Cache-Control`",
        "# your handler",
    ]
    y, middles = 26, []
    for row in rows:
        h = 40 if row.startswith("#") else 26
        kind = {"# EuidLayer": "layer", "# your handler": "site"}.get(row, "other")
        picture.box(98, y, 318, h, row, kind=kind)
        middles.append(y + h / 2)
        y += h + 6
    picture.arrow((440, 26), (440, y - 6))
    picture.text(440, 18, "request", anchor="middle")
    picture.arrow((504, y - 6), (504, 26))
    picture.text(504, 18, "response", anchor="middle")
    for label, first, last in [("# outside", 0, 8), ("# inside", 10, 13)]:
        bracket(picture, 90, 84, middles[first] - 12, middles[last] + 12)
        picture.text(78, (middles[first] + middles[last]) / 2 + 5, label, anchor="end")
    notes = [
        (0, 0, ["It stores no page with a token,", "as it obeys `Cache-Control`."]),
        (1, 2, ["In this order, a trace", "shows no cookies."]),
        (5, 6, ["They reject a request", "before a refresh begins."]),
        (7, 8, ["`subject` finds the user that", "these put into the request."]),
        (10, 12, ["They answer in place of", "a handler, or change", "`Cache-Control`."]),
    ]
    for first, last, lines in notes:
        middle = (middles[first] + middles[last]) / 2
        if first != last:
            bracket(picture, 530, 536, middles[first] - 11, middles[last] + 11)
        picture.text(546, middle + 12 - 8 * len(lines), *lines)
    return picture


def bracket(picture, x, back, top, bottom):
    picture.line((x, top), (back, top), (back, bottom), (x, bottom))


def request():
    picture = Picture(
        "request",
        372,
        "One request through the layer",
        "A request passes 1 hooks, 2 cookies and 3 policy. If the identity is fresh, or there is none, it goes on at once. If it "
        "is due, it goes to 4 refresh: a task of its own calls the operator, one call for all requests of the login, and the "
        "page waits at most max_wait. Then come 5 extensions and the handler. The response passes 6 updates, 7 cookies and 8 "
        "cache guard.",
    )
    picture.box(10, 30, 78, 318, "# browser", "# or app")
    picture.box(112, 30, 92, 86, "# Hooks", "`scope`", "`subject`", "`consent`", kind="layer")
    picture.box(230, 30, 112, 86, "# Cookies", "find by name,", "open with", "one key", kind="layer")
    picture.box(368, 30, 92, 86, "# Policy", "what may", "the handler", "see?", kind="layer")
    picture.box(528, 30, 124, 86, "# Extensions", "`Euid`", "`AdvertisingToken`", kind="layer")
    picture.box(674, 30, 76, 318, "# your", "# handler", kind="site")
    picture.box(322, 158, 184, 74, "# Refresh", "in a task of its own, one", "call per login and node", kind="layer")
    picture.box(112, 168, 112, 54, "# operator", kind="operator")
    picture.box(528, 268, 124, 80, "# Updates", "login, logout,", "opt-out", kind="layer")
    picture.box(334, 268, 160, 80, "# Cookies", "seal, and write only", "what has changed", kind="layer")
    picture.box(112, 268, 188, 80, "# Cache guard", "`private`, if it sets a cookie", "or the token was read", kind="layer")
    for label, x, y in [(1, 112, 30), (2, 230, 30), (3, 368, 30), (5, 528, 30)]:
        picture.badge(x + 4, y, label)
    for label, x, y in [(4, 322, 158), (6, 528, 268), (7, 334, 268), (8, 112, 268)]:
        picture.badge(x + 4, y, label)
    picture.arrow((88, 73), (112, 73))
    picture.arrow((204, 73), (230, 73))
    picture.arrow((342, 73), (368, 73))
    picture.arrow((460, 73), (528, 73))
    picture.text(493, 49, "fresh,", "or none", anchor="middle")
    picture.arrow((652, 73), (674, 73))
    picture.arrow((414, 116), (414, 158), kind="layer")
    picture.text(422, 141, "due")
    picture.arrow((322, 195), (224, 195), kind="layer", both=True)
    picture.text(273, 187, "refresh token", anchor="middle")
    picture.text(273, 211, "new pair", anchor="middle")
    picture.arrow((506, 208), (640, 208), (640, 116), kind="layer")
    picture.text(514, 168, "the new token, or", "after `max_wait`", "the old one")
    picture.arrow((674, 308), (652, 308))
    picture.arrow((528, 308), (494, 308))
    picture.arrow((334, 308), (300, 308))
    picture.arrow((112, 308), (88, 308))
    return picture


def times():
    picture = Picture(
        "times",
        330,
        "An identity's three times",
        "From its issue until refresh_from an identity is fresh: pages see Active, without a call. Until identity_expires it is "
        "due: a page refreshes it, and sees Active with the new token or the old one. Until refresh_expires its advertising "
        "token has expired: a page refreshes it, and sees Active with the new token, or Unavailable. After that pages see Absent. "
        "A refresh brings a new pair with three new times. On EUID's production the times are 1 hour, 3 days and 30 days after "
        "the issue; in the sandbox, unless set, 15 minutes, 1 hour and 1 day.",
    )
    ticks = [(136, "issue"), (276, "`refresh_from`"), (440, "`identity_expires`"), (612, "`refresh_expires`")]
    parts = [
        (136, 276, "# fresh", "site"),
        (276, 440, "# due", "layer"),
        (440, 612, "# token expired", "store"),
        (612, 742, "# all expired", "bad"),
    ]
    sees = [
        ["`Active`,", "without a call"],
        ["`Active`: the new", "token, or else", "the old one"],
        ["`Active` with the", "new token, or else", "`Unavailable`"],
        ["`Absent`:", "generate", "again"],
    ]
    for (left, right, label, kind), lines in zip(parts, sees):
        picture.box(left + 2, 106, right - left - 4, 40, label, kind=kind)
        picture.text((left + right) / 2, 170, *lines, anchor="middle")
    for x, label in ticks:
        picture.line((x, 100), (x, 152))
        if x > 136:
            picture.text(x, 93, label, anchor="middle")
    picture.text(128, 93, "issue", anchor="end")
    picture.line((358, 106), (358, 44), kind="layer")
    picture.arrow((526, 106), (526, 44), (136, 44), (136, 99), kind="layer")
    picture.text(336, 34, "refresh: a new pair, with three new times", anchor="middle")
    picture.text(16, 170, "a page sees")
    rows = [("production", ["1 hour", "3 days", "30 days"]), ("sandbox", ["15 minutes", "1 hour", "1 day"])]
    y = 246
    for label, lengths in rows:
        picture.line((16, y - 20), (744, y - 20), kind="other", dash=True)
        picture.text(16, y, label)
        picture.text(136, y, "0", anchor="middle")
        for (x, _), length in zip(ticks[1:], lengths):
            picture.text(x, y, f"# {length}", anchor="middle")
        y += 34
    picture.line((16, y - 20), (744, y - 20), kind="other", dash=True)
    picture.text(16, y, "Production is EUID's. The sandbox's times can be set. Not to scale.", quiet=True)
    return picture


def states():
    picture = Picture(
        "states",
        420,
        "Four ways to keep the token pair",
        "A sealed cookie or a sealed header is with the client, beside the login that it belongs to; the nodes have the cookie "
        "keys only. With a store by login, the client keeps the handle, and the store has the sealed pair under the hash of "
        "the handle. With a store by user, the client keeps at most the record of an opt-out, and the store has the sealed pair under a keyed hash of the "
        "user's id. Calls to the operator: one per identity and node without a store, one per identity by login, one per user "
        "by user. A logout holds for the client without a store, for the login by login, for all devices of the user by user.",
    )
    columns = [92, 256, 420, 584]
    w = 156
    heads = ["# sealed cookie", "# sealed header", "# store by login", "# store by user"]
    clients = [
        ["`__Host-euid.TAG`", "the sealed pair", "`__Host-euid-login`", "names its login"],
        ["`Euid-Identity-TAG`", "the sealed pair", "`Euid-Login`", "names its login"],
        ["`__Host-euid-login`", "or `Euid-Login`:", "the handle"],
        ["at most the record", "of an opt-out"],
    ]
    nodes = [["cookie keys"], ["cookie keys"], ["cookie keys"], ["cookie keys,", "store secret"]]
    stores = [None, None, ["hash of the handle:", "the sealed pair"], ["keyed hash of user id:", "the sealed pair"]]
    calls = [["one per identity", "and node"], ["one per identity", "and node"], ["one per identity"], ["one per user"]]
    ends = [["this client"], ["this client"], ["this login, also for", "a stolen handle"], ["the user, on", "all devices"]]
    for label, y in [("client", 88), ("node", 186), ("store", 268), ("calls to", 330), ("a logout", 382)]:
        picture.text(14, y, label)
    picture.text(14, 346, "operator")
    picture.text(14, 398, "holds for")
    picture.line((14, 310), (746, 310), kind="other", dash=True)
    picture.line((14, 362), (746, 362), kind="other", dash=True)
    for at, x in enumerate(columns):
        middle = x + w / 2
        picture.text(middle, 26, heads[at], anchor="middle")
        picture.box(x, 40, w, 88, *clients[at], dash=at == 3)
        picture.arrow((middle, 128), (middle, 158), both=True)
        picture.box(x, 158, w, 48, *nodes[at], kind="layer")
        if stores[at]:
            picture.arrow((middle, 206), (middle, 236), both=True)
            picture.box(x, 236, w, 56, *stores[at], kind="store")
        else:
            picture.text(middle, 268, "none", anchor="middle", quiet=True)
        picture.text(middle, 330, *calls[at], anchor="middle")
        picture.text(middle, 382, *ends[at], anchor="middle")
    return picture
