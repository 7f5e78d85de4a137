// Sends a click: java -cp 'jars/*' SendEvent.java [BROKERS] [USER] [ITEM]
// Needs org.apache.kafka:kafka-clients and com.fasterxml.jackson.core:jackson-databind.
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.StringSerializer;

public class SendEvent {
    public static void main(String[] arguments) throws Exception {
        String brokers = arguments.length > 0 ? arguments[0] : "127.0.0.1:9092";
        String user = arguments.length > 1 ? arguments[1] : "ada";
        String item = arguments.length > 2 ? arguments[2] : "318";

        Map<String, Object> settings = Map.of("bootstrap.servers", brokers, "acks", "all");
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            var event = Map.of("user", user, "item", item, "time", System.currentTimeMillis());
            String value = new ObjectMapper().writeValueAsString(event);
            var sent = producer.send(new ProducerRecord<>("clicks", user, value)).get();
            System.out.println(sent);  // topic-partition@offset
        } catch (ExecutionException | KafkaException error) {
            String why = String.valueOf(error.getMessage());
            System.err.printf("not sent: %s: does a broker run on %s? (freshet broker start)%n", why, brokers);
            System.exit(1);
        }
    }
}
