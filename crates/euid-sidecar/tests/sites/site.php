<?php // A site on the PHP client, for tests/process.py: php -S 127.0.0.1:PORT site.php
require 'euid_sidecar.php';
parse_str(parse_url($_SERVER['REQUEST_URI'], PHP_URL_QUERY) ?? '', $query);
$began = microtime(true);
$euid = match (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    '/login' => euid('login', $query),
    '/logout' => euid('logout'),
    default => euid(),
};
$euid = euid(); // A second call has the first one's answer, even if that is empty.
$milliseconds = (microtime(true) - $began) * 1000;
setcookie('theme', 'dark');
header('Vary: Accept-Encoding');
header('Server-Timing: site');
header('Cache-Control: ' . (isset($query['strict']) ? 'No-Store' : 'public, max-age=60'));
echo json_encode(['euid' => (object) $euid, 'milliseconds' => $milliseconds]);
