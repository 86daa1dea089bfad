"""The pictures of several nodes: a refresh, a logout, a change of keys."""

from canvas import Picture


def refresh():
    picture = Picture(
        "refresh",
        452,
        "A refresh on two nodes",
        "Without a store, the requests of one visitor share one call to the operator on each node: two nodes make two calls. With "
        "a store, node A puts a lease into the stored record, calls the operator once, and puts the new pair. Node B makes no "
        "call: it goes on with its valid token. If that has expired, it reads the store again after 25, 50 and 100 ms.",
    )
    picture.text(20, 30, "# without a store")
    picture.box(20, 48, 116, 112, "# one visitor", "many requests,", "the pair is due")
    picture.box(270, 44, 160, 52, "# node A", "one shared call", kind="layer")
    picture.box(270, 112, 160, 52, "# node B", "one shared call", kind="layer")
    picture.box(592, 48, 148, 112, "# operator", "two calls", kind="operator")
    for y in (58, 70, 82, 132, 144):
        picture.arrow((136, y), (270, y))
    picture.arrow((430, 70), (592, 70))
    picture.text(511, 62, "call 1", anchor="middle")
    picture.arrow((430, 138), (592, 138))
    picture.text(511, 130, "call 2", anchor="middle")
    picture.line((20, 186), (740, 186), kind="other", dash=True)
    picture.text(20, 216, "# with a store")
    picture.box(20, 238, 116, 142, "# one visitor", "many requests,", "the pair is due")
    picture.box(270, 234, 160, 70, "# node A", "has the lease", kind="layer")
    picture.box(270, 326, 160, 52, "# node B", "makes no call", kind="layer")
    picture.box(592, 230, 148, 52, "# operator", "one call", kind="operator")
    picture.box(592, 322, 148, 60, "# store", "lease, then", "the new pair", kind="store")
    for y in (250, 264, 278, 344, 358):
        picture.arrow((136, y), (270, y))
    picture.arrow((430, 256), (592, 256))
    picture.badge(452, 256, 2)
    picture.text(524, 248, "the only call", anchor="middle")
    picture.arrow((430, 290), (616, 290), (616, 322))
    picture.badge(452, 290, 1)
    picture.badge(476, 290, 3)
    picture.text(544, 308, "lease, new pair", anchor="middle")
    picture.arrow((592, 352), (430, 352))
    picture.text(511, 344, "reads", anchor="middle")
    picture.text(
        20,
        410,
        "Node B goes on with its token while that is valid.",
        "If it has expired, node B reads the store again after 25, 50 and 100 ms, up to `max_wait`.",
        quiet=True,
        step=18,
    )
    return picture


def logout():
    picture = Picture(
        "logout",
        574,
        "A logout and a late response",
        "A page of login 1 is due, and node A calls the operator. Meanwhile the visitor logs out at node B, which removes the "
        "anchor and the identity, and login 2 sets an anchor and an identity whose name ends in another tag. Then the response "
        "of node A arrives: it sets the identity of login 1, and no anchor. The next page uses login 2, which the anchor names, "
        "and removes the leftover of login 1.",
    )
    browser, a, b = 252, 508, 690
    picture.text(16, 36, "cookies in the browser", quiet=True)
    picture.box(browser - 48, 18, 96, 28, "# browser")
    picture.box(a - 52, 18, 104, 28, "# node A", kind="layer")
    picture.box(b - 52, 18, 104, 28, "# node B", kind="layer")
    for x in (browser, a, b):
        picture.line((x, 46), (x, 500), kind="other", dash=True)
    first = ["`…euid-login`: login 1", "`…euid.Ab3d`: pair of 1"]
    second = ["`…euid-login`: login 2", "`…euid.x7Qe`: pair of 2"]
    jars = [(62, 48, first), (180, 32, ["none"]), (246, 48, second), (342, 48, second), (436, 48, second)]
    for y, h, lines in jars:
        picture.box(16, y, 196, h, *lines, kind="site" if len(lines) > 1 else "other")
    picture.box(16, 394, 196, 32, "`…euid.Ab3d`: leftover", kind="bad", dash=True)

    def message(y, start, end, *lines, number=None, **style):
        picture.arrow((start, y), (end, y), **style)
        left = min(start, end)
        picture.text(left + (34 if number else 14), y - 7 - 16 * (len(lines) - 1), *lines)
        if number:
            picture.badge(left + 18, y - 11, number)

    message(86, browser, a, "a page; the pair is due", number=1)
    picture.box(a - 62, 98, 124, 40, "waits for", "the operator", kind="operator")
    message(164, browser, b, "logout", number=2)
    message(196, b, browser, "removes `…euid-login`, `…euid.Ab3d`")
    message(238, browser, b, "login 2", number=3)
    message(270, b, browser, "sets `…euid-login`, `…euid.x7Qe`")
    picture.box(a - 62, 292, 124, 40, "the operator", "has answered", kind="operator")
    message(384, a, browser, "the late response", "sets `…euid.Ab3d` only", number=4, kind="bad", dash=True)
    message(428, browser, b, "next page", number=5)
    message(460, b, browser, "uses login 2, removes `…euid.Ab3d`")
    picture.text(
        16,
        522,
        "An identity counts only beside the anchor (`…euid-login`) that names its login.",
        "A refresh never writes the anchor.",
        "Without login 2, the next page has no anchor: it sees `Absent`, and removes `…euid.Ab3d`, too.",
        quiet=True,
        step=18,
    )
    return picture


def keys():
    picture = Picture(
        "keys",
        330,
        "A change of cookie keys",
        "Each node goes through the lists of keys old; old,new; new,old; new. A node seals under the first key of its list, and opens "
        "under all. A step begins when all nodes have made the one before. The last step begins 30 days after the second. So at every "
        "moment each node can open what any other node seals.",
    )
    steps = [212, 374, 602]
    for number, x in enumerate(steps, 1):
        picture.text(x + 30, 30, f"# step {number}", anchor="middle")
    picture.text(126, 30, "# before", anchor="middle")
    rings = [("`old`", "store"), ("`old,new`", "store"), ("`new,old`", "layer"), ("`new`", "layer")]
    for number, x in enumerate((302, 464), 1):
        picture.line((x, 40), (x, 200), dash=True)
        picture.text(x, 216, f"all nodes at step {number}", anchor="middle")
    for row, node in enumerate("ABC"):
        y = 48 + 48 * row
        edges = [78, *(x + 30 * row for x in steps), 744]
        picture.text(16, y + 24, f"# node {node}")
        for left, right, (ring, kind) in zip(edges, edges[1:], rings):
            picture.box(left + 2, y, right - left - 4, 38, ring, kind=kind)
    picture.arrow((530, 212), (602, 212))
    picture.text(563, 204, "30 days", anchor="middle")
    for x, age, kind in ((78, "old", "store"), (312, "new", "layer")):
        picture.box(x, 240, 26, 18, kind=kind)
        picture.text(x + 34, 254, f"seals under the {age} key")
    picture.text(
        16,
        288,
        "A node seals under the first key of its list, and opens under all of them.",
        "So at every moment each node can open what any other node seals.",
        quiet=True,
        step=18,
    )
    return picture
