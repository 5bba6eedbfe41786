package rival

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// NotesVariable names the file that benchmarks add their figures to, a line of JSON
// each; without it they only print them.
const NotesVariable = "PELLUCID_BENCH_NOTES"

// Note is one figure: seconds of either side, and the median of the rounds' ratios.
type Note struct {
	// Against is the rival with its version, Work what was measured.
	Against, Work      string
	Ours, Rival, Ratio float64
	Threads            int
}

// Write adds the note to the file, if there is one.
func (n Note) Write() error {
	path := os.Getenv(NotesVariable)
	if path == "" {
		return nil
	}
	line, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("note %s: %w", n.Work, err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("note %s: %w", n.Work, err)
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}
