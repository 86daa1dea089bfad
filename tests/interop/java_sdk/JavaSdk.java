import com.uid2.client.IdentityTokens;
import com.uid2.client.PublisherUid2Client;
import com.uid2.client.TokenGenerateInput;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Consumer;

/**
 * Tests `euid-sidecar sandbox` with the Java SDK. The argument is the path of `euid-sidecar`.
 * run.sh beside this file starts it.
 */
public class JavaSdk {
    /** How a scope's tokens look: the beginnings for an email address and a phone number, and the length. */
    private record Scope(String name, String email, String phone, int advertisingToken, String refreshTokens) {}

    private static final List<Scope> SCOPES =
        List.of(new Scope("EUID", "E4", "F4", 219, "EA"), new Scope("UID2", "A4", "B4", 218, "AA"));

    public static void main(String[] args) throws Exception {
        String operator = args[0];
        Map<String, String> ended = Map.of("REFRESH_FROM", "0", "IDENTITY_EXPIRES", "0", "REFRESH_EXPIRES", "0");
        for (Scope scope : SCOPES) {
            against(operator, scope, Map.of(), client -> roundTrip(scope, client));
            against(operator, scope, Map.of(), JavaSdk::optOut);
            against(operator, scope, ended, JavaSdk::expired);
        }
        System.out.println(3 * SCOPES.size() + " passed, 0 failed");
    }

    private static void roundTrip(Scope scope, PublisherUid2Client client) {
        Map<TokenGenerateInput, String> people = Map.of(
            TokenGenerateInput.fromEmail("user@example.com"), scope.email,
            TokenGenerateInput.fromPhone("+442345678901"), scope.phone,
            TokenGenerateInput.fromHashedEmail("tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="), scope.email);
        for (var person : people.entrySet()) {
            IdentityTokens identity = client.generateTokenResponse(person.getKey()).getIdentity();
            for (int i = 0; i < 3; i++) {
                check(identity.getAdvertisingToken().length() == scope.advertisingToken, "length of the advertising token");
                check(identity.getAdvertisingToken().startsWith(person.getValue()), "beginning of the advertising token");
                check(identity.getRefreshToken().length() == 388, "length of the refresh token");
                check(identity.getRefreshToken().startsWith(scope.refreshTokens), "beginning of the refresh token");
                check(identity.isRefreshable(), "a fresh identity is refreshable");
                var refreshed = client.refreshToken(identity);
                check(refreshed.isSuccess(), "refresh");
                check(!refreshed.getIdentity().getAdvertisingToken().equals(identity.getAdvertisingToken()), "a new token");
                identity = refreshed.getIdentity();
            }
        }
    }

    private static void optOut(PublisherUid2Client client) {
        check(client.generateTokenResponse(TokenGenerateInput.fromEmail("optout@example.com")).isOptout(), "opt-out at generate");
        var later = client.generateTokenResponse(TokenGenerateInput.fromEmail("refresh-optout@example.com"));
        check(later.isSuccess(), "generate before the opt-out");
        check(client.refreshToken(later.getIdentity()).isOptout(), "opt-out at refresh");
    }

    private static void expired(PublisherUid2Client client) {
        IdentityTokens identity = client.generateTokenResponse(TokenGenerateInput.fromEmail("user@example.com")).getIdentity();
        waitForTheNextMillisecond();
        check(!identity.isRefreshable(), "an expired identity is not refreshable");
        try {
            client.refreshToken(identity);
        } catch (RuntimeException error) { // the class of the error is not public
            check(error.getMessage().contains("code=400"), error.getMessage());
            return;
        }
        throw new AssertionError("an expired refresh token was refreshed");
    }

    private static void waitForTheNextMillisecond() {
        for (long now = System.currentTimeMillis(); System.currentTimeMillis() == now;) Thread.onSpinWait();
    }

    /** Runs a test against a new sandbox of this scope with these lifetimes, in seconds. */
    private static void against(
            String operator, Scope scope, Map<String, String> lifetimes, Consumer<PublisherUid2Client> test) throws IOException {
        ProcessBuilder builder = new ProcessBuilder(operator, "sandbox").redirectError(ProcessBuilder.Redirect.INHERIT);
        builder.environment().put("PORT", "0");
        builder.environment().put("EUID_SANDBOX_SCOPE", scope.name.toLowerCase(Locale.ROOT));
        lifetimes.forEach((name, seconds) -> builder.environment().put("EUID_SANDBOX_" + name, seconds));
        Process process = builder.start();
        try {
            BufferedReader output = new BufferedReader(new InputStreamReader(process.getInputStream()));
            Map<String, String> settings = new HashMap<>();
            for (int i = 0; i < 3; i++) {
                String[] setting = output.readLine().split("=", 2);
                settings.put(setting[0], setting[1]);
            }
            test.accept(new PublisherUid2Client(
                settings.get(scope.name + "_OPERATOR_URL"),
                settings.get(scope.name + "_API_KEY"),
                settings.get(scope.name + "_CLIENT_SECRET")));
        } finally {
            process.destroy();
        }
    }

    private static void check(boolean holds, String claim) {
        if (!holds) throw new AssertionError(claim);
    }
}
