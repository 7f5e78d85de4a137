import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** java Send.java BROKERS TOPIC: each line of standard input, key TAB value, is sent with the client's defaults. */
public class Send {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("key.serializer", StringSerializer.class.getName());
        settings.put("value.serializer", StringSerializer.class.getName());
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings);
                BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, "UTF-8"))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                int tab = line.indexOf('\t');
                producer.send(new ProducerRecord<>(arguments[1], line.substring(0, tab), line.substring(tab + 1))).get();
            }
        }
    }
}
