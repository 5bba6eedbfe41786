package main

import (
	"bytes"
	"log" //nolint:depguard // what libraries write to it is taken here
	"log/slog"
)

// stdLog takes what libraries write to the standard logger. Some of them quote what
// somebody sent (net/http the bytes that follow an answer), which may be anything: a line
// ends where it begins to quote.
type stdLog struct{ log *slog.Logger }

// takeStdLog has what libraries write go to log.
func takeStdLog(to *slog.Logger) {
	log.SetFlags(0)
	log.SetPrefix("")
	log.SetOutput(stdLog{to})
}

// Write implements io.Writer.
func (s stdLog) Write(line []byte) (int, error) {
	text, _, _ := bytes.Cut(line, []byte("\n"))
	if at := bytes.IndexAny(text, "\"'`"); at >= 0 {
		text = append(bytes.Clone(text[:at]), "…"...)
	}
	s.log.Warn("a library says", "text", string(text))
	return len(line), nil
}
