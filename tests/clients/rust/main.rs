//! rdkafka-client BROKERS TOPIC: each line of standard input, key TAB value, is sent with the client's defaults.
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::io::BufRead;
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &arguments[1]).create().expect("a producer");
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        let (key, value) = line.split_once('\t').expect("a tab");
        producer.send(BaseRecord::to(&arguments[2]).key(key).payload(value)).expect("room in the queue");
    }
    producer.flush(Duration::from_secs(30)).expect("all sent");
}
