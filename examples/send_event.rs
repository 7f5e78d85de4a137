//! Sends a click with rdkafka: cargo run -- [BROKERS] [USER] [ITEM]
//! Needs the crates rdkafka, serde_json, and tokio with the features rt and macros.
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments.next().unwrap_or("127.0.0.1:9092".into());
    let user = arguments.next().unwrap_or("ada".into());
    let item = arguments.next().unwrap_or("318".into());

    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("partitioner", "murmur2_random") // librdkafka's default puts users on other partitions
        .set("acks", "all")
        .set("message.timeout.ms", "30000")
        .create()
        .expect("the settings are valid");
    let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_millis() as u64;
    let event = serde_json::json!({"user": user, "item": item, "time": time}).to_string();
    let record = FutureRecord::to("clicks").key(&user).payload(&event);
    match producer.send(record, Duration::from_secs(30)).await {
        Ok((partition, offset)) => println!("clicks-{partition}@{offset}"),
        Err((error, _)) => {
            eprintln!("not sent: {error}: does a broker run on {brokers}? (freshet broker start)");
            std::process::exit(1);
        }
    }
}
