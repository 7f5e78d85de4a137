// Sends a click with kafkajs: node send_event.js [BROKERS] [USER] [ITEM]
const { Kafka, logLevel } = require("kafkajs");

async function main(brokers = "127.0.0.1:9092", user = "ada", item = "318") {
  const producer = new Kafka({ brokers: brokers.split(","), logLevel: logLevel.NOTHING }).producer();
  await producer.connect();
  const event = { user, item, time: Date.now() };
  const messages = [{ key: user, value: JSON.stringify(event) }];
  const [sent] = await producer.send({ topic: "clicks", acks: -1, messages }); // -1: all
  await producer.disconnect();
  console.log(`${sent.topicName}-${sent.partition}@${sent.baseOffset}`);
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(`not sent: ${error.message}: does a broker run there? (freshet broker start)`);
  process.exit(1);
});
