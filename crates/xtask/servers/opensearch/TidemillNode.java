import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.opensearch.analysis.common.CommonAnalysisPlugin;
import org.opensearch.common.logging.LogConfigurator;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.index.reindex.ReindexPlugin;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.painless.PainlessPlugin;
import org.opensearch.plugins.Plugin;
import org.opensearch.transport.Netty4Plugin;

/**
 * One OpenSearch node for tests: {@code TidemillNode FOLDER HTTP_PORT TRANSPORT_PORT [setting=value]...}
 *
 * The server's own modules are taken from the class path, so that it needs no installation beside its jars.
 */
public class TidemillNode extends Node {
    private static final String NAME = "tidemill";

    private TidemillNode(Environment environment, Collection<Class<? extends Plugin>> modules) {
        super(environment, modules, true);
    }

    public static void main(String[] words) throws Exception {
        Path home = Path.of(words[0]).toAbsolutePath();
        Path config = Files.createDirectories(home.resolve("config"));
        Settings.Builder settings = Settings.builder()
            .put("path.home", home.toString())
            .put("cluster.name", NAME)
            .put("node.name", NAME)
            .put("network.host", "127.0.0.1")
            .put("http.port", words[1])
            .put("transport.port", words[2])
            .put("http.type", "netty4")
            .put("transport.type", "netty4")
            .put("discovery.type", "single-node")
            .put("cluster.max_shards_per_node", 5000)
            // Tests share a disk that may be nearly full: no index turns read-only unless a test asks for that.
            .put("cluster.routing.allocation.disk.threshold_enabled", false);
        for (int index = 3; index < words.length; index++) {
            String[] pair = words[index].split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(settings.build(), Map.of(), config, () -> NAME);
        LogConfigurator.setNodeName(NAME);
        TidemillNode node = new TidemillNode(environment, List.of(
            Netty4Plugin.class, PainlessPlugin.class, ReindexPlugin.class,
            CommonAnalysisPlugin.class));
        node.start();
        CountDownLatch ended = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
            ended.countDown();
        }));
        ended.await();
    }
}
