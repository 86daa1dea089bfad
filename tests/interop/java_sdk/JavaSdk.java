import com.uid2.client.IdentityTokens;
import com.uid2.client.PublisherUid2Client;
import com.uid2.client.TokenGenerateInput;
import java.util.List;

/**
 * The Java SDK against the `sandbox_operator` example, which is found by the three EUID_ variables.
 * Run by run.sh beside this file.
 */
public class JavaSdk {
    public static void main(String[] args) {
        PublisherUid2Client client = new PublisherUid2Client(
            System.getenv("EUID_OPERATOR_URL"), System.getenv("EUID_API_KEY"), System.getenv("EUID_CLIENT_SECRET"));

        List<TokenGenerateInput> people = List.of(
            TokenGenerateInput.fromEmail("user@example.com"),
            TokenGenerateInput.fromPhone("+442345678901"),
            TokenGenerateInput.fromHashedEmail("tMmiiTI7IaAcPpQPFQ65uMVCWH8av9jw4cwf/F5HVRQ="));
        for (TokenGenerateInput person : people) {
            IdentityTokens identity = client.generateTokenResponse(person).getIdentity();
            for (int i = 0; i < 3; i++) {
                check(identity.getAdvertisingToken().length() == 219, "length of the advertising token");
                check(identity.getRefreshToken().length() == 388, "length of the refresh token");
                check(identity.isRefreshable(), "a fresh identity is refreshable");
                var refreshed = client.refreshToken(identity);
                check(refreshed.isSuccess(), "refresh");
                check(!refreshed.getIdentity().getAdvertisingToken().equals(identity.getAdvertisingToken()), "a new token");
                identity = refreshed.getIdentity();
            }
        }

        check(client.generateTokenResponse(TokenGenerateInput.fromEmail("optout@example.com")).isOptout(), "opt-out at generate");
        var later = client.generateTokenResponse(TokenGenerateInput.fromEmail("refresh-optout@example.com"));
        check(later.isSuccess(), "generate before the opt-out");
        check(client.refreshToken(later.getIdentity()).isOptout(), "opt-out at refresh");

        System.out.println("1 passed, 0 failed");
    }

    private static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }
}
