// A push server of the classic shape in Go, to compare with: on each connection a goroutine that reads, a goroutine
// that writes, and a channel of 64 between them. It speaks the lines that the load generator needs:
// SUB, PUB, PING; with -echo it sends back what it gets.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"log"
	"net"
	"sync"
)

const (
	queueMessages = 64
	lineBytes     = 64 << 10
)

type client struct {
	conn net.Conn
	out  chan []byte
	gone chan struct{}
}

type hub struct {
	mu     sync.RWMutex
	topics map[string]map[*client]struct{}
	echo   bool
}

func main() {
	addr := flag.String("listen", "127.0.0.1:8888", "where to listen")
	echo := flag.Bool("echo", false, "send back what comes")
	flag.Parse()
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	h := &hub{topics: map[string]map[*client]struct{}{}, echo: *echo}
	log.Printf("ready: %v", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Print(err)
			continue
		}
		c := &client{conn: conn, out: make(chan []byte, queueMessages), gone: make(chan struct{})}
		go c.write()
		go h.read(c)
	}
}

// read serves the client's commands until it leaves.
func (h *hub) read(c *client) {
	defer h.leave(c)
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(make([]byte, 0, 512), lineBytes)
	for lines.Scan() {
		line := lines.Bytes()
		verb, rest, _ := bytes.Cut(line, []byte(" "))
		switch {
		case h.echo:
			c.reply(string(line))
		case string(verb) == "SUB":
			h.subscribe(c, string(rest))
			c.reply("OK SUB " + string(rest))
		case string(verb) == "PUB":
			topic, payload, _ := bytes.Cut(rest, []byte(" "))
			h.publish(string(topic), payload)
			c.reply("OK PUB 1")
		case string(verb) == "PING":
			c.reply("PONG")
		default:
			c.reply("ERR unknown-verb " + string(verb))
		}
	}
}

// reply waits for room: a client that does not read its answers is not read either.
func (c *client) reply(line string) {
	select {
	case c.out <- []byte(line + "\n"):
	case <-c.gone:
	}
}

// write sends what is queued; what has gathered meanwhile goes out in one system call.
func (c *client) write() {
	defer close(c.gone)
	for message := range c.out {
		waiting := len(c.out)
		if waiting == 0 {
			if _, err := c.conn.Write(message); err != nil {
				break
			}
			continue
		}
		batch := make(net.Buffers, 1, waiting+1)
		batch[0] = message
		for ; waiting > 0; waiting-- {
			batch = append(batch, <-c.out)
		}
		if _, err := batch.WriteTo(c.conn); err != nil {
			break
		}
	}
	c.conn.Close()
}

func (h *hub) subscribe(c *client, topic string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.topics[topic] == nil {
		h.topics[topic] = map[*client]struct{}{}
	}
	h.topics[topic][c] = struct{}{}
}

// publish never waits: a client whose channel is full misses the message.
func (h *hub) publish(topic string, payload []byte) {
	message := append(append(append([]byte("MSG "), topic...), ' '), payload...)
	message = append(message, '\n')
	h.mu.RLock()
	defer h.mu.RUnlock()
	for c := range h.topics[topic] {
		select {
		case c.out <- message:
		default:
		}
	}
}

func (h *hub) leave(c *client) {
	h.mu.Lock()
	for topic, clients := range h.topics {
		delete(clients, c)
		if len(clients) == 0 {
			delete(h.topics, topic)
		}
	}
	h.mu.Unlock()
	close(c.out)
}
