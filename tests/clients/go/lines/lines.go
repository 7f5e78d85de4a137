// Package lines reads what the clients send: key TAB value, a line each, from standard input.
package lines

import (
	"bufio"
	"log"
	"os"
	"strings"
)

// Line is one record to send.
type Line struct{ Key, Value string }

// Read returns all lines. It ends the program where one has no tab.
func Read() []Line {
	var found []Line
	scanner := bufio.NewScanner(os.Stdin)
	for scanner.Scan() {
		key, value, ok := strings.Cut(scanner.Text(), "\t")
		if !ok {
			log.Fatalf("a line without a tab: %q", scanner.Text())
		}
		found = append(found, Line{key, value})
	}
	if err := scanner.Err(); err != nil {
		log.Fatal(err)
	}
	return found
}
