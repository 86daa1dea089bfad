import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import okhttp3.FormBody;
import okhttp3.HttpUrl;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;

/** Tests the sample against the publisher example, whose path is the argument. run.sh beside this file starts it. */
public final class OkHttpTest {
    private static final Pattern SITE = Pattern.compile("site: +(\\S+)");
    private static final Pattern IDENTITY =
        Pattern.compile("\\{\"state\":\"(\\w+)\",\"advertising_token\":(?:null|\"([^\"]+)\").*\\}");

    /** What a page of the site shows. */
    private record Page(String state, String token) {}

    private final HttpUrl site;
    private final FileStore store;
    private OkHttpClient app;

    private OkHttpTest(HttpUrl site, Path file) throws IOException {
        this.site = site;
        store = new FileStore(file);
        restart();
    }

    public static void main(String[] args) throws Exception {
        for (String scope : List.of("euid", "uid2")) {
            test(args[0], Map.of("SCOPE", scope), List.of(scope + "-login", scope + "-identity-TAG"));
            // The identity is in a store, and the app keeps the login alone.
            test(args[0], Map.of("SCOPE", scope, "EUID_STORE_URL", "memory:"), List.of(scope + "-login"));
        }
        System.out.println("12 passed, 0 failed");
    }

    /** Tests against a publisher with these variables. The app must keep headers with these names. */
    private static void test(String executable, Map<String, String> variables, List<String> names) throws Exception {
        ProcessBuilder builder = new ProcessBuilder(executable).redirectError(ProcessBuilder.Redirect.DISCARD);
        builder.environment().putAll(variables);
        builder.environment().put("PORT", "0");
        Process publisher = builder.start();
        Path folder = Files.createTempDirectory("euid");
        try {
            HttpUrl site = address(publisher);
            new OkHttpTest(site, folder.resolve("first")).wholeLife(Set.copyOf(names));
            new OkHttpTest(site, folder.resolve("second")).otherSiteGetsNoHeaders();
            new OkHttpTest(site, folder.resolve("missing/third")).loginThatIsNotSavedFails();
        } finally {
            publisher.destroy();
        }
    }

    private void wholeLife(Set<String> names) throws IOException {
        check(page().state().equals("absent"), "absent before the login");
        login();
        Page first = page();
        check(first.state().equals("active"), "active after the login");
        Map<String, String> atLogin = store.load();
        check(names().equals(names), "the app saves " + names + ", not " + names());
        String login = names.stream().filter(name -> name.endsWith("-login")).findFirst().orElseThrow();

        restart();
        check(page().equals(first), "a restart keeps the token");

        // A refresh is due 15 minutes after the login. This client has no interceptor, as another browser.
        send(new OkHttpClient(), post("/sandbox/advance", "seconds", "900"));
        Page second = page();
        check(second.state().equals("active") && !second.token().equals(first.token()), "a refresh brings a new token");
        check(page().equals(second), "the app keeps the new token");
        check(store.load().keySet().equals(atLogin.keySet()), "a refresh keeps the names");
        check(store.load().equals(atLogin) == (names.size() == 1), "a refresh is saved, unless it is in the site's store");
        check(store.load().get(login).equals(atLogin.get(login)), "a refresh keeps the login");
        restart();
        check(page().equals(second), "a restart keeps the new token");

        send(app, post("/logout", "", ""));
        check(store.load().isEmpty(), "a logout removes all");
        check(page().state().equals("absent"), "absent after the logout");
        restart();
        check(page().state().equals("absent"), "a restart keeps the logout");
    }

    /** The name `localhost` leads to the same server, but is another site. */
    private void otherSiteGetsNoHeaders() throws IOException {
        login();
        HttpUrl elsewhere = site.newBuilder().host("localhost").encodedPath("/api/identity").build();
        check(identity(new Request.Builder().url(elsewhere).build()).state().equals("absent"), "another site gets no headers");
        check(page().state().equals("active"), "and changes none");
    }

    private void loginThatIsNotSavedFails() throws IOException {
        try {
            login();
        } catch (IOException expected) {
            return;
        }
        throw new AssertionError("a login that was not saved succeeded");
    }

    /** The names of the saved headers, without the tags of logins. */
    private Set<String> names() throws IOException {
        return store.load().keySet().stream()
            .map(name -> name.replaceFirst("-[0-9a-f]{6}$", "-TAG"))
            .collect(Collectors.toSet());
    }

    private void restart() throws IOException {
        app = new OkHttpClient.Builder().addNetworkInterceptor(new EuidHeaders(site, store)).build();
    }

    private void login() throws IOException {
        send(app, post("/login", "email", "user@example.com"));
    }

    private Page page() throws IOException {
        return identity(new Request.Builder().url(site.resolve("/api/identity")).build());
    }

    private Page identity(Request request) throws IOException {
        String body = send(app, request);
        Matcher matcher = IDENTITY.matcher(body);
        check(matcher.matches(), body);
        return new Page(matcher.group(1), matcher.group(2));
    }

    private Request post(String path, String name, String value) {
        FormBody form = new FormBody.Builder().add(name, value).build();
        return new Request.Builder().url(site.resolve(path)).header("Accept", "application/json").post(form).build();
    }

    private static String send(OkHttpClient client, Request request) throws IOException {
        try (Response response = client.newCall(request).execute()) {
            check(response.isSuccessful(), request.url() + ": " + response.code());
            return response.body().string();
        }
    }

    /** Waits for the line with the address. */
    private static HttpUrl address(Process publisher) throws IOException {
        BufferedReader output = new BufferedReader(new InputStreamReader(publisher.getInputStream()));
        for (String line = output.readLine(); line != null; line = output.readLine()) {
            Matcher matcher = SITE.matcher(line);
            if (matcher.matches()) return HttpUrl.get(matcher.group(1));
        }
        throw new AssertionError("the publisher has printed no address");
    }

    private static void check(boolean holds, String claim) {
        if (!holds) throw new AssertionError(claim);
    }
}
