// sarama BROKERS TOPIC: sends standard input with sarama's defaults.
package main

import (
	"log"
	"os"
	"strings"

	"freshet/clients/lines"

	"github.com/IBM/sarama"
)

func main() {
	config := sarama.NewConfig()
	config.Producer.Return.Successes = true // what SyncProducer asks for; it says nothing of partitions
	producer, err := sarama.NewSyncProducer(strings.Split(os.Args[1], ","), config)
	if err != nil {
		log.Fatal(err)
	}
	for _, line := range lines.Read() {
		message := &sarama.ProducerMessage{
			Topic: os.Args[2], Key: sarama.StringEncoder(line.Key), Value: sarama.StringEncoder(line.Value),
		}
		if _, _, err := producer.SendMessage(message); err != nil {
			log.Fatal(err)
		}
	}
	if err := producer.Close(); err != nil {
		log.Fatal(err)
	}
}
