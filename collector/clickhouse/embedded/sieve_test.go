package embedded

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSieve: what the engine says of itself passes, what it repeats of rows and
// statements does not, whatever it looks like.
func TestSieve(t *testing.T) {
	head := "2026.11.27 03:17:15.044529 [ 3395 ] {0ad07545-079e-4ede-88a7-5265ff6c5de4} "
	const table = "default.predictions (c27e64de-0496-4360-9748-7a157d7287d2)"
	for line, want := range map[string]string{
		head + "<Error> executeQuery: Code: 469. DB::Exception: Constraint `c` for table " + table + " is violated at row 1. Column values: external_id = 'person-77'. (VIOLATED_CONSTRAINT) (in query: SELECT 'person-77')": "<Error> executeQuery: Code: 469 (VIOLATED_CONSTRAINT)",
		head + "<Error> TCPHandler: Can't send exception to client. Close connection.: Code: 210. DB::NetException: I/O error 'person-77'":                                                                                   "<Error> TCPHandler: Can't send exception to client. Close connection.: Code: 210 (NETWORK_ERROR)",
		head + "<Error> person-77: Code: 9999. DB::Exception: person-77":                                                       "<Error> other: " + leftOut,
		head + "<Fatal> BaseDaemon: (query_id: person-77) (query: SELECT 'person-77') Received signal Segmentation fault (11)": "<Fatal> BaseDaemon: Received signal Segmentation fault (11)",
		head + "<Information> " + table + ": Added mutation: mutation_12.txt, person-77":                                       "<Information> default.predictions: Added mutation: mutation_12.txt",
		head + "<Information> " + table + ": Block with ID 202611_1_1 already exists as part 202611_1_1_0; ignoring it":        "<Information> default.predictions: Block with ID 202611_1_1 already exists as part 202611_1_1_0; ignoring it",
		head + "<Information> " + table + ": person-77":                                                                        "<Information> default.predictions: " + leftOut,
		head + "<Information> Application: Listening for http://127.0.0.1:77":                                                  "<Information> Application: Listening for http",
		head + "<Information> Context: Database disk name: default, path: /x/person-77":                                        "<Information> Context: Database disk name: default",
		"Code: 76. DB::Exception: Cannot lock file person-77":                                                                  "<Error> engine: Code: 76 (CANNOT_OPEN_FILE)",
		"0. ? @ 0x000000001c8fa4b3": "",
		"person-77":                 "",
		"SELECT 'person-77'":        "",
	} {
		if got := sifted(line); got != want {
			t.Errorf("%s\n gives %q\nwant %q", line, got, want)
		}
	}
}

// TestEngineLogIsBounded: it makes room for itself, long lines are cut, and what earlier
// versions wrote goes.
func TestEngineLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"clickhouse.log", "clickhouse.log.0.gz", "child.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("person-77"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := openLog(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	line := "2026.11.27 03:17:15.044529 [ 3395 ] {} <Error> executeQuery: Code: 469. DB::Exception: " + strings.Repeat("person-77 ", 3*lineBytes/10) + "\n"
	for range logKept + 2 {
		l.size = logBytes
		l.follow(strings.NewReader(line))
	}
	if said := l.close(); strings.Count(said, "Code: 469 (VIOLATED_CONSTRAINT)") != tailLines {
		t.Errorf("the last lines: %q", said)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != logKept+1 {
		t.Fatalf("files: %v, %v", files, err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil || strings.Contains(string(b), "person") || strings.Count(string(b), "\n") != 1 || !strings.Contains(string(b), "executeQuery: Code: 469") {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
}
