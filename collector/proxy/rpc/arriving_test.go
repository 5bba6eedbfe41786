package rpc

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/pellucid/pellucid/collector/proxy/rpc/inference"
)

func (a *arriving) bytes() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held
}

// stuck is a connection that takes some bytes and then no more.
type stuck struct {
	net.Conn
	mu   sync.Mutex
	left int
	end  chan struct{}
}

func (c *stuck) Write(p []byte) (int, error) {
	c.mu.Lock()
	n := min(len(p), c.left)
	c.left -= n
	c.mu.Unlock()
	if n, err := c.Conn.Write(p[:n]); err != nil {
		return n, err
	}
	if n == len(p) {
		return n, nil
	}
	<-c.end
	return n, net.ErrClosed
}

// TestMessagesThatAreComingAreBounded: who sends much and slowly pushes out himself, the
// oldest first, by call and by stream; small calls go on, and when all is over nothing is
// counted any more.
func TestMessagesThatAreComingAreBounded(t *testing.T) {
	const limit, size, part = 8 << 20, 4 << 20, 2 << 20
	s, c := serve(t, Config{MaxBody: size + 1<<10, MaxArriving: limit, Timeout: 30 * time.Second}, models{}, nil)
	end := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 100)
	var wg sync.WaitGroup
	large := &inference.ModelInferRequest{ModelName: "none", RawInputContents: [][]byte{make([]byte, size)}}
	send := func(i int) {
		slow, err := grpc.NewClient(c.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
				return &stuck{Conn: conn, left: part, end: end}, err
			}))
		if err != nil {
			t.Error(err)
			return
		}
		wg.Go(func() {
			defer slow.Close()
			client := inference.NewGRPCInferenceServiceClient(slow)
			if i%2 == 0 {
				_, err = client.ModelInfer(ctx, large)
			} else {
				var stream grpc.BidiStreamingClient[inference.ModelInferRequest, inference.ModelStreamInferResponse]
				if stream, err = client.ModelStreamInfer(ctx); err == nil {
					_ = stream.Send(large) // what became of it Recv tells
					_, err = stream.Recv()
				}
			}
			if status.Code(err) == codes.OK {
				t.Errorf("a message of which a half came was answered")
			}
			ended <- i
		})
	}
	const senders = 10
	for i := range senders {
		before, gone := s.coming.bytes(), len(ended)
		send(i)
		// It is there, or somebody was pushed out for it.
		for deadline := time.Now().Add(10 * time.Second); s.coming.bytes() < before+part/2 && len(ended) == gone; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("sender %d: %d bytes are coming", i, s.coming.bytes())
			}
		}
		for deadline := time.Now().Add(10 * time.Second); s.coming.bytes() > limit; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d bytes are coming, the limit is %d", s.coming.bytes(), limit)
			}
		}
		if _, err := inference.NewGRPCInferenceServiceClient(c).ServerLive(t.Context(), &inference.ServerLiveRequest{}); err != nil {
			t.Errorf("a small call beside %d slow ones: %v", i+1, err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); len(ended) < senders-limit/part-1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d slow calls were ended", len(ended), senders)
		}
	}
	if n := len(ended); n > senders-2 {
		t.Errorf("%d of %d slow calls were ended", n, senders)
	}
	for n := len(ended); n > 0; n-- {
		if i := <-ended; i >= senders-2 {
			t.Errorf("call %d was ended, older ones were there", i)
		}
	}
	cancel()
	close(end)
	wg.Wait()
	s.idle(t)
	for deadline := time.Now().Add(20 * time.Second); s.coming.bytes() != 0; time.Sleep(10 * time.Millisecond) {
		runtime.GC() // what was never put back
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are still counted", s.coming.bytes())
		}
	}
}
