' Read, never run: the checks of this project have no Roku. Call it in a Task node.
'
' Keeps the EUID state of a channel in its registry: sends the headers that the site has set, and keeps what it answers.
'
'     response = EuidRequest("https://www.example.com", "/api/identity")
'     EuidRequest("https://www.example.com", "/logout", "submit=")      ' with a body: a POST

' Sends a request to the site. Returns status and body; the status is below zero if no response arrived, and 0 if a login or
' logout could not be saved. Then it has failed: try it again. roUrlTransfer follows redirects and hides their headers, so no route
' of a channel may redirect.
function EuidRequest(site as String, path as String, body = invalid as Dynamic) as Object
    kept = CreateObject("roRegistrySection", "euid-headers")
    port = CreateObject("roMessagePort")
    transfer = CreateObject("roUrlTransfer")
    transfer.SetMessagePort(port)
    transfer.SetCertificatesFile("common:/certs/ca-bundle.crt")
    transfer.RetainBodyOnError(true)
    transfer.SetUrl(site + path)
    transfer.AddHeader("Accept", "application/json")

    ' "none" says that the channel wants headers, as an empty value does, which roUrlTransfer may not send.
    for each beginning in EuidBeginnings()
        name = beginning + "login"
        if not kept.Exists(name) then transfer.AddHeader(name, "none")
    end for
    for each name in kept.GetKeyList()
        transfer.AddHeader(name, kept.Read(name))
    end for

    if body = invalid then
        sent = transfer.AsyncGetToString()
    else
        sent = transfer.AsyncPostFromString(body)
    end if
    if not sent then return { status: -1, body: "" }
    event = wait(10000, port)
    if type(event) <> "roUrlEvent" then return { status: -1, body: "" }

    changed = false
    isLoginOrLogout = false
    for each header in event.GetResponseHeadersArray()
        for each key in header
            name = LCase(key)
            if EuidIsOne(name) then
                ' The old value goes first, so that a removal works even if the new one is not kept.
                kept.Delete(name)
                if header[key] <> invalid and header[key] <> "" then kept.Write(name, header[key])
                changed = true
                if Right(name, 6) = "-login" then isLoginOrLogout = true
            end if
        end for
    end for
    ' The loss of a refresh only costs another one. A login or logout that is not saved fails.
    if changed and not kept.Flush() and isLoginOrLogout then return { status: 0, body: "" }
    return { status: event.GetResponseCode(), body: event.GetString() }
end function

' Whether a header with this name is kept.
function EuidIsOne(name as String) as Boolean
    for each beginning in EuidBeginnings()
        if Left(name, Len(beginning)) = beginning then return true
    end for
    return false
end function

' What the names begin with in EUID and in UID2.
function EuidBeginnings() as Object
    return ["euid-", "uid2-"]
end function
