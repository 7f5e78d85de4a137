// segmentio BROKERS TOPIC: sends standard input with the defaults of segmentio/kafka-go.
package main

import (
	"context"
	"log"
	"os"
	"strings"

	"freshet/clients/lines"

	"github.com/segmentio/kafka-go"
)

func main() {
	writer := &kafka.Writer{Addr: kafka.TCP(strings.Split(os.Args[1], ",")...), Topic: os.Args[2]}
	var messages []kafka.Message
	for _, line := range lines.Read() {
		messages = append(messages, kafka.Message{Key: []byte(line.Key), Value: []byte(line.Value)})
	}
	if err := writer.WriteMessages(context.Background(), messages...); err != nil {
		log.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		log.Fatal(err)
	}
}
