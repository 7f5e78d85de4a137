// franz BROKERS TOPIC: sends standard input with franz-go's defaults.
package main

import (
	"context"
	"log"
	"os"
	"strings"

	"freshet/clients/lines"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(os.Args[1], ",")...))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	for _, line := range lines.Read() {
		record := &kgo.Record{Topic: os.Args[2], Key: []byte(line.Key), Value: []byte(line.Value)}
		if err := client.ProduceSync(context.Background(), record).FirstErr(); err != nil {
			log.Fatal(err)
		}
	}
}
