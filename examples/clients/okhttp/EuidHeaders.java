import java.io.IOException;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import okhttp3.Headers;
import okhttp3.HttpUrl;
import okhttp3.Interceptor;
import okhttp3.Request;
import okhttp3.Response;

/**
 * Keeps the EUID state of an app: sends the headers that the site has set, and keeps what it answers. Add it as a
 * network interceptor: only that sees each redirect, also one to another site, which must not get the headers.
 *
 *     new OkHttpClient.Builder().addNetworkInterceptor(new EuidHeaders(site, store)).build();
 */
public final class EuidHeaders implements Interceptor {
    /** Keeps the headers while the app does not run, where only this app can read them. Returns once they are kept. */
    public interface Store {
        Map<String, String> load() throws IOException;

        void save(Map<String, String> headers) throws IOException;
    }

    /** What the names begin with in EUID and in UID2. */
    private static final List<String> BEGINNINGS = List.of("euid-", "uid2-");

    private final HttpUrl site;
    private final Store store;
    private final Map<String, String> kept;

    public EuidHeaders(HttpUrl site, Store store) throws IOException {
        this.site = site;
        this.store = store;
        kept = new TreeMap<>(store.load());
    }

    @Override
    public Response intercept(Chain chain) throws IOException {
        Request request = chain.request();
        if (!isSite(request.url())) return chain.proceed(request);
        Response response = chain.proceed(withHeaders(request));
        try {
            keep(response.headers());
        } catch (IOException notSaved) {
            response.close();
            throw notSaved;
        }
        return response;
    }

    private boolean isSite(HttpUrl url) {
        return url.scheme().equals(site.scheme()) && url.host().equals(site.host()) && url.port() == site.port();
    }

    private synchronized Request withHeaders(Request request) {
        Request.Builder builder = request.newBuilder();
        // Without a value, they say that the app wants headers.
        for (String beginning : BEGINNINGS) builder.header(beginning + "login", "");
        kept.forEach(builder::header);
        return builder.build();
    }

    private synchronized void keep(Headers headers) throws IOException {
        boolean changed = false;
        boolean isLoginOrLogout = false;
        for (int i = 0; i < headers.size(); i++) {
            String name = headers.name(i).toLowerCase(Locale.ROOT);
            if (BEGINNINGS.stream().noneMatch(name::startsWith)) continue;
            if (headers.value(i).isEmpty()) kept.remove(name);
            else kept.put(name, headers.value(i));
            changed = true;
            isLoginOrLogout |= name.endsWith("-login");
        }
        if (!changed) return;
        try {
            store.save(kept);
        } catch (IOException error) {
            // After a restart the previous login would count again. The loss of a refresh only costs another one.
            if (isLoginOrLogout) throw error;
        }
    }
}
