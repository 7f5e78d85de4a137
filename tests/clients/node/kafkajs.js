// node kafkajs.js BROKERS TOPIC: each line of standard input, key TAB value, is sent with the client's defaults.
const { Kafka, logLevel } = require("kafkajs");
const { readFileSync } = require("fs");

async function main() {
  const [brokers, topic] = process.argv.slice(2);
  const producer = new Kafka({ brokers: brokers.split(","), logLevel: logLevel.ERROR }).producer();
  await producer.connect();
  const messages = readFileSync(0, "utf8").split("\n").filter(Boolean).map((line) => {
    const at = line.indexOf("\t");
    return { key: line.slice(0, at), value: line.slice(at + 1) };
  });
  await producer.send({ topic, messages });
  await producer.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
