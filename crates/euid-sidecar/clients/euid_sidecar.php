<?php // The visitor's EUID: `$euid = euid();` before the page's first output. A login is
// `euid('login', ['email' => $address])`, a logout `euid('logout')`; a later `euid()` then has their answer.
// The answer is in $_SERVER, which is new in each request, also where a process serves several.
function euid(string $call = 'page', array $form = []): array {
    if (isset($_SERVER['euid']) && str_starts_with($call, 'page')) return $_SERVER['euid'];
    $path = 'unix:///run/euid-sidecar/api.sock';
    [$method, $patience] = str_starts_with($call, 'page') ? ['GET', 0.05] : ['POST', 6.0]; // seconds
    [$end, $body, $text] = [microtime(true) + $patience, http_build_query($form, '', '&'), ''];
    $head = "$method /v1/$call HTTP/1.0\r\n";
    foreach (preg_grep('/^HTTP_(COOKIE$|SEC_|EUID_|UID2_)/', array_keys($_SERVER)) as $name)
        $head .= strtr(substr($name, 5), '_', '-') . ": $_SERVER[$name]\r\n";
    if ($sidecar = @stream_socket_client($path, timeout: $patience)) {
        fwrite($sidecar, "{$head}Content-Length: " . strlen($body) . "\r\n\r\n$body");
        for (stream_set_blocking($sidecar, false); !feof($sidecar) && ($left = $end - microtime(true)) > 0; ) {
            [$read, $none] = [[$sidecar], null];
            if (stream_select($read, $none, $none, 0, (int) ($left * 1e6))) $text .= fread($sidecar, 65536); } }
    header_register_callback(function () {
        $strict = preg_grep('/^Cache-Control:.*no-store/i', headers_list());
        foreach ($_SERVER['euid']['headers'] ?? [] as $name => $it) header("$name: $it", $name === 'cache-control' && !$strict);
        foreach ($_SERVER['euid']['set_cookie'] ?? [] as $line) header("Set-Cookie: $line", false);
    });
    return $_SERVER['euid'] = json_decode(explode("\r\n\r\n", $text, 2)[1] ?? '', true) ?? [];
}
