package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows how far long work has come: a bar on a terminal, a plain line
// now and then in a pipe.
type progress struct {
	w    io.Writer
	bar  *progressbar.ProgressBar
	name string
	// total, done and said are for plain lines: what there is, what is done, and
	// when the last line was printed.
	total, done int
	said        time.Time
}

func newProgress(w io.Writer) *progress { return &progress{w: w} }

// start begins work of n pieces.
func (p *progress) start(name string, n int) {
	p.name, p.total, p.done, p.said = name, n, 0, time.Now()
	if f, ok := p.w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions(n, progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(name),
			progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	}
}

// add says that n more pieces are done.
func (p *progress) add(n int) {
	p.done += n
	if p.bar != nil {
		_ = p.bar.Add(n) // a bar that cannot be drawn is not worth failing for
		return
	}
	if time.Since(p.said) >= 5*time.Second {
		p.said = time.Now()
		fmt.Fprintf(p.w, "%s: %d of %d\n", p.name, p.done, p.total)
	}
}

// warn says what somebody should know of a result.
func (p *progress) warn(text string) { fmt.Fprintln(p.w, "warning: "+text) }

// finish ends the work.
func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish() // as above
	}
}
