<?php
// A site that answers with its environment, for tests/proxy.py: php -S 127.0.0.1:PORT environ.php
if (isset($_GET['command'])) {
    header('Euid-Command: ' . str_replace('NONCE', $_SERVER['HTTP_EUID_NONCE'], $_GET['command']));
}
echo json_encode($_SERVER + ['all' => getallheaders()]);
