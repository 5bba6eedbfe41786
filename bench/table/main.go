// Command table runs every benchmark that has a rival and prints their figures as one
// table in Markdown, or writes it into README.md between its marks. It measures nothing
// itself: each benchmark alternates with its rival as it does alone, one after the other.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/bench/internal/marks"
	"github.com/pellucid/pellucid/bench/internal/rival"
)

// The marks of the table in a document.
const (
	begin = "<!-- made by go run ./bench/table -write README.md -->"
	end   = "<!-- end of the table -->"
)

func main() {
	python := flag.String("python", "", "a Python with what all rivals need; empty makes virtual environments in the user's cache folder")
	rounds := flag.Int("rounds", 5, "rounds of every measurement")
	rows := flag.Int("rows", 200_000, "rows to fit trees to")
	write := flag.String("write", "", "a document to write the table into, instead of printing it")
	from := flag.String("from", "", "make the table of notes that an earlier run kept")
	keep := flag.String("keep", "", "where to keep the notes of this run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *python, *rounds, *rows, *write, *from, *keep)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, python string, rounds, rows int, write, from, keep string) error {
	if from == "" {
		dir, err := os.MkdirTemp("", "pellucid-table")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if from = keep; from == "" {
			from = filepath.Join(dir, "notes")
		}
		if err := measure(ctx, python, rounds, rows, from); err != nil {
			return err
		}
	}
	notes, err := read(from)
	if err != nil {
		return err
	}
	table := markdown(notes)
	if write == "" {
		fmt.Print(table)
		return nil
	}
	return marks.Replace(write, begin, end, table)
}

// measure runs the benchmarks; what they print goes to standard error.
func measure(ctx context.Context, python string, rounds, rows int, notes string) error {
	n := strconv.Itoa(rounds)
	for _, args := range [][]string{
		{"./bench/networks", "-threads", "1", "-rounds", n},
		{"./bench/networks", "-threads", "2", "-rounds", n},
		{"./bench/blas", "-threads", "1,2", "-rounds", n},
		{"./bench/trees", "-rounds", n},
		{"./bench/fit", "-rows", strconv.Itoa(rows), "-rounds", strconv.Itoa(min(rounds, 3))},
	} {
		args = append(args, "-python", python)
		fmt.Fprintln(os.Stderr, "go run", strings.Join(args, " "))
		c := exec.CommandContext(ctx, "go", append([]string{"run"}, args...)...)
		c.Env = append(os.Environ(), rival.NotesVariable+"="+notes)
		c.Stdout, c.Stderr = os.Stderr, os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("run %s: %w", args[0], err)
		}
	}
	return nil
}

func read(path string) ([]rival.Note, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the notes: %w", err)
	}
	var notes []rival.Note
	for line := range bytes.Lines(data) {
		var n rival.Note
		if err := json.Unmarshal(line, &n); err != nil {
			return nil, fmt.Errorf("read the notes in %s: %w", path, err)
		}
		notes = append(notes, n)
	}
	return notes, nil
}

// row is a work with its notes by number of threads.
type row struct {
	against, work string
	one, two      *rival.Note
}

// markdown is the table: a row a work in order of the notes, with a mean of all works
// against the same library where there are several.
func markdown(notes []rival.Note) string {
	var rows []*row
	for i := range notes {
		n := &notes[i]
		at := slices.IndexFunc(rows, func(r *row) bool { return r.against == n.Against && r.work == n.Work })
		if at < 0 {
			at, rows = len(rows), append(rows, &row{against: n.Against, work: n.Work})
		}
		if n.Threads == 1 {
			rows[at].one = n
		} else {
			rows[at].two = n
		}
	}
	var b strings.Builder
	b.WriteString("| work | against | ours | rival | time, ours / rival | on two threads |\n|---|---|---|---|---|---|\n")
	for _, group := range []string{"batch", "product", ""} {
		var ones, twos []float64
		list := slices.DeleteFunc(slices.Clone(rows), func(r *row) bool { return groupOf(r.work) != group })
		for _, r := range list {
			if r.one != nil {
				ones = append(ones, r.one.Ratio)
			}
			if r.two != nil {
				twos = append(twos, r.two.Ratio)
			}
			if group != "product" {
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.work, r.against, seconds(r.one, true), seconds(r.one, false), ratio(r.one), ratio(r.two))
			}
		}
		if len(list) == 0 || group == "" {
			continue
		}
		name := map[string]string{"batch": "networks", "product": "products of matrices"}[group]
		fmt.Fprintf(&b, "| %d %s, geometric mean (worst) | %s | | | %s | %s |\n", len(list), name, list[0].against, mean(ones), mean(twos))
	}
	return b.String()
}

// groupOf is what rows a mean is taken over: networks have a batch.
func groupOf(work string) string {
	switch {
	case strings.Contains(work, ", batch "):
		return "batch"
	case strings.HasPrefix(work, "product "):
		return "product"
	}
	return ""
}

func mean(ratios []float64) string {
	if len(ratios) == 0 {
		return ""
	}
	sum := 0.0
	for _, r := range ratios {
		sum += math.Log(r)
	}
	return fmt.Sprintf("**%.2f** (%.2f)", math.Exp(sum/float64(len(ratios))), slices.Max(ratios))
}

func ratio(n *rival.Note) string {
	switch {
	case n == nil:
		return ""
	case n.Ratio < 0.1:
		return fmt.Sprintf("%.3f", n.Ratio)
	}
	return fmt.Sprintf("%.2f", n.Ratio)
}

func seconds(n *rival.Note, ours bool) string {
	if n == nil {
		return ""
	}
	s := n.Rival
	if ours {
		s = n.Ours
	}
	switch {
	case s >= 1:
		return fmt.Sprintf("%.2f s", s)
	case s >= 1e-3:
		return fmt.Sprintf("%.3g ms", s*1e3)
	}
	return fmt.Sprintf("%.3g us", s*1e6)
}
