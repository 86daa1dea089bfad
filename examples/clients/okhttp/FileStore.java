import java.io.IOException;
import java.io.Reader;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;

/**
 * Keeps the headers in a file. On Android use a file of the app that no backup takes, or `SharedPreferences` with
 * `commit()`: `apply()` returns before it has saved.
 */
public final class FileStore implements EuidHeaders.Store {
    private final Path file;

    public FileStore(Path file) {
        this.file = file;
    }

    @Override
    public Map<String, String> load() throws IOException {
        Map<String, String> headers = new TreeMap<>();
        if (!Files.exists(file)) return headers;
        Properties saved = new Properties();
        try (Reader reader = Files.newBufferedReader(file)) {
            saved.load(reader);
        }
        saved.stringPropertyNames().forEach(name -> headers.put(name, saved.getProperty(name)));
        return headers;
    }

    @Override
    public void save(Map<String, String> headers) throws IOException {
        Properties saved = new Properties();
        saved.putAll(headers);
        // The file is whole at any time, whenever the app ends.
        Path next = file.resolveSibling(file.getFileName() + ".next");
        try (Writer writer = Files.newBufferedWriter(next)) {
            saved.store(writer, null);
        }
        Files.move(next, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    }
}
