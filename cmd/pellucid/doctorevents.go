package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/pellucid/pellucid/collector/keys"
	"github.com/pellucid/pellucid/collector/proxy/events"
)

// checkEvents fails where halves of CloudEvents that wait are damaged, or have gone while no
// server ran: one that runs, or the next, counts those.
func checkEvents(_ context.Context, p patient) (string, error) {
	dir := filepath.Join(p.Data, "events")
	if !exists(dir) {
		return "none yet", nil
	}
	found, err := events.Check(dir, func() ([]byte, error) {
		return keys.ReadSecret(cmp.Or(p.Capture.KeyFile, p.privateKey()))
	})
	if err != nil {
		return "", fmt.Errorf("look at the halves of events that wait: %w", err)
	}
	return eventsFound(found), eventsWrong(found)
}

func eventsFound(f events.Report) string {
	found := "no half waits"
	if f.Waiting > 0 {
		found = halves(f.Waiting, "waits", "wait")
	}
	if !f.Oldest.IsZero() {
		found += ", the oldest since " + f.Oldest.UTC().Format(time.RFC3339)
	}
	if f.Missing > 0 && !f.Sure {
		found += fmt.Sprintf("; %s listed and not there, and may have been recorded when the machine went down", halves(f.Missing, "is", "are"))
	}
	if d := f.Lately; d.Total()+d.Rows > 0 {
		found += fmt.Sprintf("; dropped last, until %s: %d fit no version, %d damaged, %d gone, %d rows of others", f.At.Format(time.RFC3339), d.Unfit, d.Damaged, d.Gone, d.Rows)
	}
	return found
}

func eventsWrong(f events.Report) error {
	var wrong []error
	if f.OtherKey {
		wrong = append(wrong, fmt.Errorf("%s that were kept under another key than the one of now", halves(f.Waiting, "waits", "wait")))
	}
	if f.Damaged > 0 {
		wrong = append(wrong, fmt.Errorf("%d of %d halves that wait are damaged", f.Damaged, f.Waiting))
	}
	if f.Aside > 0 {
		wrong = append(wrong, fmt.Errorf("%s set aside: what was in it is lost unless it was sent again. This is said until the files *.damaged in the folder events are deleted", damagedHalves(f.Aside)))
	}
	if f.Missing > 0 && f.Sure {
		wrong = append(wrong, fmt.Errorf("the files of %s are gone: they are lost unless they are sent again", halves(f.Missing, "that waited", "that waited")))
	}
	if !f.Whole {
		wrong = append(wrong, errors.New("the list of what waits in events/waiting.list is gone or damaged: others may have gone"))
	}
	return errors.Join(wrong...)
}

func damagedHalves(n int) string {
	if n == 1 {
		return "1 damaged half was"
	}
	return fmt.Sprintf("%d damaged halves were", n)
}

// halves says how many do something.
func halves(n int, one, more string) string {
	if n == 1 {
		return "1 half " + one
	}
	return fmt.Sprintf("%d halves %s", n, more)
}
