// Read, never compiled: the checks of this project have no Swift. Needs iOS 15, tvOS 15 or macOS 12.
//
// Keeps the EUID state of an app: sends the headers that the site has set, and keeps what it answers.
//
//     let session = try EuidSession(site: URL(string: "https://www.example.com")!, store: KeychainStore())
//     let (data, response) = try await session.data(for: URLRequest(url: page))

import Foundation

/// Keeps the headers while the app does not run: in the keychain, with `kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly`.
protocol EuidStore: Sendable {
    func load() throws -> [String: String]
    /// Returns once they are kept.
    func save(_ headers: [String: String]) throws
}

actor EuidSession {
    /// What the names begin with in EUID and in UID2.
    private static let beginnings = ["euid-", "uid2-"]

    private let site: URL
    private let store: EuidStore
    private let session: URLSession
    private var kept: [String: String]

    init(site: URL, store: EuidStore, session: URLSession = .shared) throws {
        self.site = site
        self.store = store
        self.session = session
        kept = try store.load()
    }

    /// Sends a request to the site. A redirect is returned as it is.
    func data(for request: URLRequest) async throws -> (Data, HTTPURLResponse) {
        guard let url = request.url, url.scheme == site.scheme, url.host == site.host, url.port == site.port else {
            throw URLError(.badURL)
        }
        var request = request
        // "none" says that the app wants headers, as an empty value does; a proxy may drop an empty header.
        for beginning in Self.beginnings { request.setValue("none", forHTTPHeaderField: beginning + "login") }
        for (name, value) in kept { request.setValue(value, forHTTPHeaderField: name) }
        let (data, response) = try await session.data(for: request, delegate: NoRedirects())
        guard let response = response as? HTTPURLResponse else { throw URLError(.badServerResponse) }
        try keep(response)
        return (data, response)
    }

    private func keep(_ response: HTTPURLResponse) throws {
        var changed = false
        var isLoginOrLogout = false
        for case let (field as String, value as String) in response.allHeaderFields {
            let name = field.lowercased()
            guard Self.beginnings.contains(where: name.hasPrefix) else { continue }
            kept[name] = value.isEmpty ? nil : value
            changed = true
            isLoginOrLogout = isLoginOrLogout || name.hasSuffix("-login")
        }
        guard changed else { return }
        do {
            try store.save(kept)
        } catch _ where !isLoginOrLogout {
            // The loss of a refresh only costs another one. A login or logout that is not saved fails.
        }
    }
}

/// A redirect to another site would take the headers there, and the headers of the redirect itself would be lost.
private final class NoRedirects: NSObject, URLSessionTaskDelegate {
    func urlSession(
        _ session: URLSession, task: URLSessionTask, willPerformHTTPRedirection response: HTTPURLResponse,
        newRequest request: URLRequest, completionHandler: @escaping (URLRequest?) -> Void
    ) {
        completionHandler(nil)
    }
}
