package embedded

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
)

// logName is the engine's log. An engine writes values into its own: those of a row that
// a constraint refuses, and the whole statement of whatever failed. So it has no file: it
// logs into a pipe, and what comes out goes through a sieve that lets pass what is known
// to hold no value. Nothing else of a line is kept but its level, its logger and the
// number of its error.
const logName = "engine.log"

// oldLogs are those of before there was a sieve. They hold values, and go.
var oldLogs = []string{"clickhouse.log*", "child.log"}

// A log of logBytes makes room for the next one, and logKept of those stay. A line is
// read as far as lineBytes: nothing that passes is as long.
const (
	logBytes  = 10 << 20
	logKept   = 3
	lineBytes = 16 << 10
	tailLines = 4
)

// leftOut stands for a text that no form is of.
const leftOut = "(text left out)"

var (
	// lineForm is a line's beginning, as the engine writes it: time, thread, query, level,
	// and what names the logger and says the text.
	lineForm = regexp.MustCompile(`^\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d\.\d+ \[ \d+ \] \{[^}]*\} <(Fatal|Critical|Error|Warning|Notice|Information|Debug|Trace|Test)> (.*)$`)
	// tableForm is the logger of a table.
	tableForm = regexp.MustCompile(`^([A-Za-z_]\w*\.[A-Za-z_]\w*) \((?:[0-9a-f]{8}-[0-9a-f-]{27}|\w+Thread)\): `)
	codeForm  = regexp.MustCompile(`Code: (\d{1,4})\. DB::`)
	// signalForm is what a crash says, behind the statement that it came from.
	signalForm = regexp.MustCompile(`Received signal (?:Segmentation fault|Aborted|Bus error|Illegal instruction|Floating point exception|Killed|Terminated|Trace/breakpoint trap)? ?\(\d{1,2}\)`)
)

// loggers are those whose name says where a line is from.
var loggers = []string{
	"Application", "AsynchronousMetrics", "BackgroundSchedulePool/BgSchPool", "BackgroundSchedulePool/BgStrmSchPool", "BaseDaemon", "Context",
	"DatabaseCatalog", "DynamicQueryHandler", "InterpreterInsertQuery", "MergeMutateSelectedEntry", "MergeTreeBackgroundExecutor", "StatusFile", "TCPHandler", "TablesLoader",
	"executeQuery", "loadMetadata",
}

// Part of a form: a part's name, and a number.
const (
	partForm   = `(?:all|\d{4,8}|[0-9a-f]{32})(?:_\d+){2,4}`
	numberForm = `\d+`
)

// forms are the texts that pass, as far as they are given here: what a line says behind
// them does not. None has room for a value.
var forms = compileForms(
	`Listening for (?:native protocol \(tcp\)|http)`,
	`Initialized background executor for [a-z ]+ with num_threads=N, num_tasks=N`, `Initialized background executor for common operations`,
	`Shutdown disk default`, `Database disk name: default`,
	`Parsed metadata of N tables in N databases`, `Start synchronous (?:loading|startup) of databases`,
	`Status file`, `Writing pid N`, `Will use cgroup reader`,
	`Create BackgroundSchedulePool with N initial threads`,
	`Temporarily pause scheduling of tasks with id N`,
	`Have N tables in drop queue \(N of them are in use\), will try drop N tables`, `Removing metadata`,
	`INSERT SELECT deduplication is disabled because SELECT is not stable`,
	`Client has gone away\.`, `Client has not sent any data\.`,
	`MergeMutateSelectedEntry was not finalized`,
	`Start to refresh statistics`, `dropAllData: [a-z ]+`, `Removing temporary directory`,
	`Added mutation: mutation_N\.txt`, `Waiting mutation: mutation_N\.txt`, `Mutation mutation_N\.txt done`,
	`Block with ID P already exists as part P; ignoring it`,
	`Remove N parts by covering them`, `Dropped partition with N parts`, `Dropped P part by replacing it with new empty P part`,
	`Detaching broken part`, `Considering to remove broken part`, `Removing broken part`, `Renaming unexpected part P`, `Loading data parts`, `There are no data parts`,
	`Part P (?:is broken|is not covered|was lost)`, `The set of parts restored in place`,
	`Failed to restart the table\. Will try again`, `Table was in readonly mode\. Will try to activate it\.`,
	`Can't send exception to client\. Close connection\.`, `Can't skip excessive input packets after the exception\. Close connection\.`,
)

func compileForms(texts ...string) *regexp.Regexp {
	all := strings.Join(texts, "|")
	all = regexp.MustCompile(`\bN\b`).ReplaceAllLiteralString(all, numberForm)
	all = regexp.MustCompile(`_N\\`).ReplaceAllLiteralString(all, `_`+numberForm+`\`)
	all = regexp.MustCompile(`\bP\b`).ReplaceAllLiteralString(all, partForm)
	return regexp.MustCompile("^(?:" + all + ")")
}

// sifted returns what of a line of the engine may be kept, and "" for one of which
// nothing is: a stack's, or what a text goes on with.
func sifted(line string) string {
	m := lineForm.FindStringSubmatch(line)
	if m == nil {
		// The child's own words, before there is an engine, and an error of its command line.
		switch {
		case strings.HasPrefix(line, "pellucid: "):
			return line
		case strings.HasPrefix(line, "Code: "):
			return "<Error> engine: " + code(line)
		case strings.HasPrefix(line, "libc++abi: terminating"):
			return "<Fatal> engine: libc++abi: terminating"
		}
		return ""
	}
	logger, text := "other", m[2]
	if t := tableForm.FindStringSubmatch(text); t != nil {
		logger, text = t[1], text[len(t[0]):]
	} else {
		for _, name := range loggers {
			if rest, ok := strings.CutPrefix(text, name+": "); ok {
				logger, text = name, rest
				break
			}
		}
	}
	kept := forms.FindString(text)
	for _, s := range []string{signalForm.FindString(text), code(text)} {
		if s != "" {
			kept = strings.TrimPrefix(kept+": "+s, ": ")
		}
	}
	if kept == "" {
		kept = leftOut
	}
	return "<" + m[1] + "> " + logger + ": " + kept
}

// code returns the number and name of the error in a text, and "" where there is none
// that ClickHouse has.
func code(text string) string {
	m := codeForm.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	n, err := strconv.Atoi(m[1])
	if err != nil || !proto.Error(n).IsAError() {
		return ""
	}
	name, _, _ := strings.Cut(proto.Error(n).String(), " ")
	return fmt.Sprintf("Code: %d (%s)", n, name)
}

// engineLog is the file behind the sieve. One goroutine writes it.
type engineLog struct {
	path string
	log  *slog.Logger
	file *os.File
	size int64
	tail []string
	// failed is said once, until a write succeeds again: the disk may be full.
	failed bool
}

// openLog deletes logs that hold values and opens dir's own.
func openLog(dir string, log *slog.Logger) (*engineLog, error) {
	for _, old := range oldLogs {
		found, err := filepath.Glob(filepath.Join(dir, old))
		if err != nil {
			return nil, fmt.Errorf("look for old logs: %w", err)
		}
		for _, path := range found {
			if err := removed(path); err != nil {
				return nil, err
			}
		}
	}
	l := &engineLog{path: filepath.Join(dir, logName), log: log}
	return l, l.open()
}

func (l *engineLog) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the engine's log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open the engine's log: %w", err), f.Close())
	}
	l.file, l.size = f, st.Size()
	return nil
}

// follow sieves what the engine writes until it ends. It reads on whatever becomes of
// the file: an engine whose log nobody reads stands still.
func (l *engineLog) follow(from io.Reader) {
	in := bufio.NewReaderSize(from, lineBytes)
	for {
		b, more, err := in.ReadLine()
		line := string(b)
		for more && err == nil {
			_, more, err = in.ReadLine()
		}
		if kept := sifted(line); kept != "" {
			l.tail = append(l.tail[max(0, len(l.tail)+1-tailLines):], kept)
			l.write(time.Now().UTC().Format(time.RFC3339Nano) + " " + kept + "\n")
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				l.log.Warn("the engine's log ends early", "error", err)
			}
			return
		}
	}
}

func (l *engineLog) write(line string) {
	err := l.rotate()
	if err == nil {
		var n int
		n, err = l.file.WriteString(line)
		l.size += int64(n)
	}
	if err != nil && !l.failed {
		l.log.Warn("the engine's log cannot be written", "file", l.path, "error", err)
	}
	l.failed = err != nil
}

// rotate makes room for the next line: engine.log becomes engine.log.1, and so on.
func (l *engineLog) rotate() error {
	if l.file == nil {
		return l.open()
	}
	if l.size < logBytes {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	for i := logKept; i > 0 && err == nil; i-- {
		from := l.path
		if i > 1 {
			from += "." + strconv.Itoa(i-1)
		}
		if err = os.Rename(from, l.path+"."+strconv.Itoa(i)); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("rotate the engine's log: %w", err)
	}
	return l.open()
}

// close ends the log and returns its last lines, for an error to say.
func (l *engineLog) close() string {
	if l.file != nil {
		if err := l.file.Close(); err != nil {
			l.log.Warn("close the engine's log", "error", err)
		}
	}
	if len(l.tail) == 0 {
		return ""
	}
	return ": " + strings.Join(l.tail, "\n")
}
