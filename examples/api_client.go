// Send an event to the HTTP API and ask for a slate that contains it: go run api_client.go USER ITEM
//
// FRESHET_API is the address (http://127.0.0.1:8080), FRESHET_TOKEN a token, if the server requires one.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"
)

type problem struct {
	Title, Detail, Field string
}

type results struct {
	Events []struct {
		MinOffset string `json:"min_offset"`
	}
}

type slate struct {
	Strategy string
	Seq      int
	Items    []struct {
		Item  string
		Score float64
	}
}

func ask(method, path string, body, into any) error {
	api := os.Getenv("FRESHET_API")
	if api == "" {
		api = "http://127.0.0.1:8080"
	}
	var data bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&data).Encode(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequest(method, api+path, &data)
	if err != nil {
		return err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if token := os.Getenv("FRESHET_TOKEN"); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Timeout: 15 * time.Second}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("no answer: %w: does freshet serve run on %s?", err, api)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 400 {
		var found problem
		if err := json.NewDecoder(answer.Body).Decode(&found); err != nil {
			return fmt.Errorf("%s", answer.Status)
		}
		return fmt.Errorf("%s: %s %s", found.Title, found.Field, found.Detail)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

func run(user, item string) error {
	event := map[string]any{"type": "click", "user": user, "item": item, "time": time.Now().UnixMilli()}
	var written results
	if err := ask("POST", "/v1/events", event, &written); err != nil {
		return err
	}
	query := url.Values{"n": {"3"}, "min_offset": {written.Events[0].MinOffset}}
	var found slate
	path := "/v1/users/" + url.PathEscape(user) + "/recommendations?" + query.Encode()
	if err := ask("GET", path, nil, &found); err != nil {
		return err
	}
	events := "events"
	if found.Seq == 1 {
		events = "event"
	}
	fmt.Printf("%s after %d %s:\n", found.Strategy, found.Seq, events)
	for _, scored := range found.Items {
		fmt.Printf("%8.4f %s\n", scored.Score, scored.Item)
	}
	return nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: api_client USER ITEM")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
