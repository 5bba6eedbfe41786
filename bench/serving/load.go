package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// features is the width of the model.
const features = 30

// post is a whole HTTP request for rows of random numbers.
func post(rows int, r *rand.Rand) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"inputs":[{"name":"input","datatype":"FP32","shape":[%d,%d],"data":[`, rows, features)
	for i := range rows * features {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatFloat(math.Round(r.NormFloat64()*1e4)/1e4, 'g', -1, 64))
	}
	b.WriteString("]}]}")
	head := fmt.Sprintf("POST /v2/models/m/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", b.Len())
	return append([]byte(head), b.Bytes()...)
}

// client is one kept-alive connection; it does as little as it can, since it shares the machine with the server.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(addr string) (*client, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}, nil
}

func (c *client) close() { _ = c.conn.Close() }

// roundTrip sends the request and reads the answer, which must be a 200 with a
// length.
func (c *client) roundTrip(body []byte) error {
	if _, err := c.conn.Write(body); err != nil {
		return err
	}
	length := -1
	for first := true; ; first = false {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
			return fmt.Errorf("answered %s", bytes.TrimSpace(line))
		}
		if len(line) == 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && strings.EqualFold(string(name), "Content-Length") {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("an answer without a length")
	}
	_, err := io.CopyN(io.Discard, c.r, int64(length))
	return err
}

// result is one measurement: requests a second, microseconds of latency, and
// microseconds of CPU a request of the server and of its child.
type result struct{ rate, p50, p99, cpu, childCPU float64 }

// load sends requests over n connections for a time.
func load(s *server, body []byte, n int, long time.Duration) (result, error) {
	before, err := s.cpu()
	if err != nil {
		return result{}, err
	}
	var wg sync.WaitGroup
	taken := make([][]float64, n)
	errs := make([]error, n)
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			c, err := dial(s.addr)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.close()
			for time.Since(began) < long {
				at := time.Now()
				if errs[i] = c.roundTrip(body); errs[i] != nil {
					return
				}
				taken[i] = append(taken[i], float64(time.Since(at).Nanoseconds())/1e3)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	after, err := s.cpu()
	if err != nil {
		return result{}, err
	}
	for _, err := range errs {
		if err != nil {
			return result{}, err
		}
	}
	all := slices.Concat(taken...)
	slices.Sort(all)
	count := float64(len(all))
	return result{
		rate: count / took.Seconds(), p50: all[len(all)/2], p99: all[len(all)*99/100],
		cpu: (after.own - before.own) / count * 1e6, childCPU: (after.child - before.child) / count * 1e6,
	}, nil
}

// pin keeps every thread of this process on one core.
func pin(core int) error {
	var set unix.CPUSet
	set.Set(core)
	return setAffinity(set)
}
