// Uploads with net/http, as python_clients.py does.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const piece = 16384

var client = &http.Client{Timeout: 10 * time.Second}

// A reader whose length net/http doesn't know, and which is written to while it is sent.
func streamed(body []byte) io.Reader {
	reader, writer := io.Pipe()
	go func() {
		for len(body) > 0 {
			count := min(piece, len(body))
			if _, err := writer.Write(body[:count]); err != nil {
				return
			}
			body = body[count:]
		}
		writer.Close()
	}()
	return reader
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func outcome(url, token, expected string, body io.Reader) string {
	request, err := http.NewRequest("POST", url, body)
	if err != nil {
		return err.Error()
	}
	if token != "-" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	if fmt.Sprint(response.StatusCode) != expected ||
		!strings.Contains(string(text), `"status":`+expected) {
		return "status " + response.Status
	}
	return "read"
}

func main() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var url, token, expected, framing string
		var size, count int
		fmt.Sscan(lines.Text(), &url, &token, &expected, &framing, &size, &count)
		for ; count > 0; count-- {
			body := bytes.Repeat([]byte("x"), size)
			var reader io.Reader = bytes.NewReader(body)
			if framing == "chunked" {
				reader = streamed(body)
			}
			fmt.Println(outcome(url, token, expected, reader))
		}
		fmt.Println()
	}
}
