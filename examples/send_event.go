// Sends a click with franz-go: go run . [BROKERS] [USER] [ITEM]
// Needs github.com/twmb/franz-go.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type click struct {
	User string `json:"user"`
	Item string `json:"item"`
	Time int64  `json:"time"` // epoch milliseconds
}

func main() {
	brokers, user, item := argument(1, "127.0.0.1:9092"), argument(2, "ada"), argument(3, "318")
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...)) // acks=all is the default
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	value, err := json.Marshal(click{user, item, time.Now().UnixMilli()})
	if err != nil {
		log.Fatal(err)
	}
	record := &kgo.Record{Topic: "clicks", Key: []byte(user), Value: value}
	limited, cancel := context.WithTimeout(context.Background(), 30*time.Second) // without a limit it tries for ever
	defer cancel()
	sent, err := client.ProduceSync(limited, record).First()
	if err != nil {
		log.Fatalf("not sent: %v: does a broker run on %s? (freshet broker start)", err, brokers)
	}
	fmt.Printf("%s-%d@%d\n", sent.Topic, sent.Partition, sent.Offset)
}

func argument(position int, missing string) string {
	if position < len(os.Args) {
		return os.Args[position]
	}
	return missing
}
