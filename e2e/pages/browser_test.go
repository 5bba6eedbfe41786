// Package pages_test looks at the pages of a running demo in a real Chromium:
// the numbers on them against direct SQL, how they look on a desk and on a phone,
// light and dark, and what their buttons and links do.
//
// It is a module of its own so that the browser's library is none of the
// product's dependencies; `.ci/pages BINARY` starts a demo and runs it.
package pages_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is one tab with its complaints: what a page wrote to the console, what
// it threw, and whom else than the server it asked.
type browser struct {
	ctx    context.Context // chromedp's tab is a context
	origin string

	mu         sync.Mutex
	complaints []string
	requests   int
}

// patience bounds a step that waits for the page; nothing is asserted about time.
const patience = 30 * time.Second

func open(t *testing.T, origin string) *browser {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.Flag("disable-quic", true))
	if path := os.Getenv("CHROMIUM"); path != "" {
		opts = append(opts, chromedp.ExecPath(path))
	}
	allocated, end := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(end)
	ctx, closeTab := chromedp.NewContext(allocated)
	t.Cleanup(closeTab)
	b := &browser{ctx: ctx, origin: origin}
	// Do with no action starts the browser, which lives as long as this context.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	_, err1 := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	_, err2 := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	_, err3 := chromedp.Call(ctx, runtime.Enable, cdp.Empty{})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return b
}

// hear keeps what must not happen.
func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	complain := func(format string, args ...any) {
		b.complaints = append(b.complaints, fmt.Sprintf(format, args...))
	}
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		switch e.Type {
		case runtime.ConsoleAPICalledTypeError, runtime.ConsoleAPICalledTypeWarning, runtime.ConsoleAPICalledTypeAssert:
			complain("console %s: %s", e.Type, arguments(e.Args))
		}
	case *runtime.EventExceptionThrown:
		complain("exception: %s %s", e.ExceptionDetails.Text, arguments([]*runtime.RemoteObject{e.ExceptionDetails.Exception}))
	case *log.EventEntryAdded: // refused by the content security policy, failed to load, deprecated
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning || e.Entry.Source == log.EntrySourceSecurity {
			complain("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		b.requests++
		if !own(b.origin, e.Request.URL) {
			complain("asks another server: %s", e.Request.URL)
		}
	case *network.EventLoadingFailed:
		if !e.Canceled {
			complain("loading failed: %s %s", e.Type, e.ErrorText)
		}
	}
}

func arguments(list []*runtime.RemoteObject) string {
	var out []string
	for _, a := range list {
		if a != nil {
			out = append(out, string(a.Value)+a.Description)
		}
	}
	return strings.Join(out, " ")
}

// own says that a URL needs no other server than ours.
func own(origin, address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "data" || u.Scheme+"://"+u.Host == origin)
}

// heard returns the complaints since it was last called.
func (b *browser) heard() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.complaints
	b.complaints = nil
	return out
}

func (b *browser) do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatalf("%v (the page complained: %q)", err, b.heard())
	}
}

// ask runs an action that answers.
func ask[T any](t *testing.T, b *browser, action chromedp.Action[T]) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	out, err := chromedp.Run(ctx, action)
	if err != nil {
		t.Fatalf("%v (the page complained: %q)", err, b.heard())
	}
	return out
}

// look opens a page and waits until it has loaded and drawn.
func (b *browser) look(t *testing.T, path string) {
	t.Helper()
	b.do(t, chromedp.Navigate(b.origin+path))
	b.settle(t)
}

// settle waits until charts are drawn and two frames have passed.
func (b *browser) settle(t *testing.T) {
	t.Helper()
	b.until(t, `document.readyState === "complete" && [...document.querySelectorAll(".plot[data-chart]")].every(n => n.querySelector("canvas"))`)
	ask(t, b, chromedp.Evaluate[bool](`new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))`, chromedp.EvalAwaitPromise))
}

// until waits for a condition of the page.
func (b *browser) until(t *testing.T, js string) {
	t.Helper()
	b.do(t, chromedp.Poll[chromedp.Void]("Boolean("+js+")"))
}

func eval[T any](t *testing.T, b *browser, js string) T {
	t.Helper()
	return ask(t, b, chromedp.Evaluate[T](js))
}

// as makes the window a size and asks for a scheme of colours.
func (b *browser) as(t *testing.T, width int64, scheme string) {
	t.Helper()
	b.do(t, chromedp.EmulateViewport(width, 900))
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		t.Fatal(err)
	}
}
