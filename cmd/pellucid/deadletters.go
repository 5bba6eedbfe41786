package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/spool"
	"github.com/pellucid/pellucid/dashboards/api"
)

// openDead opens the dead letters beside the spool, whose lock guards them. A
// letter that a kill kept from being appended is not on its way.
func (s *server) openDead(dir string) error {
	dead, err := spool.OpenDead(spool.DeadConfig{Dir: filepath.Join(dir, "dead"), Ours: s.marks.ours(markedDead), MaxBytes: int64(s.cfg.Capture.DeadBytes), Logger: s.log, Lost: s.marks.lostRecords})
	if err != nil {
		return err
	}
	s.dead = dead
	s.onStop("dead letters", func(context.Context) error { return dead.Close() })
	return s.settleDriven()
}

// settleDriven takes back that letters are on their way which are not in the spool.
func (s *server) settleDriven() error {
	var stay []string
	for _, l := range s.dead.List() {
		if !l.Driving {
			continue
		}
		onItsWay, err := s.driving(&l)
		if err != nil {
			return err
		}
		if !onItsWay {
			stay = append(stay, l.ID)
		}
	}
	return s.dead.SetDriving(stay, false)
}

// driving reports whether a letter waits in the spool.
func (s *server) driving(l *collector.DeadLetter) (bool, error) {
	records, err := s.spool.Find(l.Record)
	if err != nil {
		return false, err
	}
	for _, r := range records {
		if r.Kind != collector.KindDriven {
			continue
		}
		if d, err := collector.DecodeDeadLetter(r.Payload); err == nil && d.ID == l.ID {
			return true, nil
		}
	}
	return false, nil
}

// fromDead answers for a prediction that the store refuses.
func (s *server) fromDead(ctx context.Context, ref collector.Ref) ([]collector.StoredPrediction, error) {
	request, row, oneRow := collector.SplitID(ref.ID)
	for _, l := range s.dead.List() {
		if l.Insert != collector.InsertPredictions || l.Record != ref.ID && !(oneRow && l.Record == request) || ref.Model != "" && l.Model != ref.Model {
			continue
		}
		whole, err := s.deadLetter(ctx, l.ID)
		if err != nil {
			return nil, err
		}
		rows := whole.Predictions
		if l.Record != ref.ID {
			if row >= len(rows) {
				continue
			}
			rows = rows[row : row+1]
		}
		return rows, nil
	}
	return nil, nil
}

func (s *server) deadLetters() *api.DeadLetters {
	return &api.DeadLetters{
		List: s.dead.List,
		Get: func(ctx context.Context, id string) (api.DeadLetter, error) {
			l, err := s.deadLetter(ctx, id)
			if err != nil {
				return l, err
			}
			return l, s.audited().told(ctx, "read", l.Model, "dead letter "+l.ID, l.Rows)
		},
		Drive: func(ctx context.Context, r api.DriveRequest) (n int, err error) {
			if r.Edit != nil {
				return s.editDead(ctx, r)
			}
			err = s.act(ctx, deadEntry("dead_letters.drive", r), func() error { n, err = s.driveDead(ctx, r); return err })
			return n, err
		},
		Delete: func(ctx context.Context, r api.DriveRequest) (n int, err error) {
			err = s.act(ctx, deadEntry("dead_letters.delete", r), func() error { n, err = s.deleteDead(r); return err })
			return n, err
		},
	}
}

// deadEntry tells the audit log what is done with which dead letters.
func deadEntry(action string, r api.DriveRequest) audit.Entry {
	e := audit.Entry{Action: action, Tenant: collector.DefaultTenant, Object: "all dead letters"}
	if !r.All {
		e.Object, e.Counts = "dead letters by id", map[string]int64{"letters": int64(len(r.IDs))}
	}
	return e
}

// deadLetter shows a letter as what it would have become.
func (s *server) deadLetter(ctx context.Context, id string) (api.DeadLetter, error) {
	l, err := s.dead.Get(id)
	if err != nil {
		return api.DeadLetter{}, err
	}
	out := api.DeadLetter{DeadLetter: *l}
	if err := s.openLetter(ctx, &out); err != nil {
		out.Unreadable = err.Error()
	}
	return out, nil
}

// schemaNamed finds a schema wherever it is known; an empty one where it is not
// named.
func (s *server) schemaNamed(ctx context.Context, id string) (*collector.Schema, error) {
	if schema := s.schemaOf(id); schema != nil || id == "" {
		return cmp.Or(schema, &collector.Schema{}), nil
	}
	return s.store.Schema(ctx, id)
}

func (s *server) openLetter(ctx context.Context, l *api.DeadLetter) error {
	switch l.Kind {
	case collector.KindPrediction, collector.KindImported, collector.KindRefused:
		p, err := collector.DecodePrediction(l.Payload)
		if err != nil {
			return err
		}
		schema, err := s.schemaNamed(ctx, p.SchemaID)
		if err != nil {
			return err
		}
		l.Predictions = collector.StoredRows(p, schema)
		return nil
	case collector.KindFeedback:
		f, err := collector.DecodeFeedback(l.Payload)
		l.Feedback = f
		return err
	}
	return fmt.Errorf("a record of kind %d has no form to show", l.Kind)
}

// named are the letters a request is about. One that is not there is an error, and
// then nothing is done.
func (s *server) named(r api.DriveRequest) ([]string, error) {
	if !r.All {
		for _, id := range r.IDs {
			if _, err := s.dead.Get(id); err != nil {
				return nil, err
			}
		}
		return r.IDs, nil
	}
	var ids []string
	for _, l := range s.dead.List() {
		ids = append(ids, l.ID)
	}
	return ids, nil
}

// driveDead appends letters to the spool, which brings them home or back here. A
// kill in between leaves a letter both here and in the spool: the drain stores it
// once, since it takes a driven letter only while that is still kept.
func (s *server) driveDead(ctx context.Context, r api.DriveRequest) (int, error) {
	if !s.driveMu.TryLock() {
		return 0, errBusy
	}
	defer s.driveMu.Unlock()
	ids, err := s.named(r)
	if err != nil {
		return 0, err
	}
	for n, id := range ids {
		l, err := s.dead.Get(id)
		if err != nil {
			return n, err
		}
		if r.WithoutFeatures {
			if l.Driving {
				return n, errDriven(id)
			}
			if err := cutFeatures(l); err != nil {
				return n, err
			}
		}
		if l.Driving {
			onItsWay, err := s.driving(l)
			if err != nil {
				return n, err
			}
			if onItsWay {
				continue
			}
		}
		if err := s.drive(ctx, l); err != nil {
			return n, err
		}
	}
	s.spool.Flush()
	s.log.Info("dead letters are driven again", "letters", len(ids), "without features", r.WithoutFeatures)
	return len(ids), nil
}

func (s *server) drive(ctx context.Context, l *collector.DeadLetter) error {
	payload, err := collector.EncodeDeadLetter(l)
	if err != nil {
		return err
	}
	rec := collector.Record{Kind: collector.KindDriven, Version: collector.DeadLetterVersion, Payload: payload}
	rec.ID, rec.TraceID = collector.PayloadKeys(rec.Kind, rec.Payload)
	if err := s.dead.SetDriving([]string{l.ID}, true); err != nil {
		return err
	}
	if err := s.spool.Append(ctx, rec); err != nil {
		// It may have been written all the same: the next start looks.
		return fmt.Errorf("drive dead letter %s: %w", l.ID, err)
	}
	return nil
}

// cutFeatures takes the features out of a prediction, and says so in it.
func cutFeatures(l *collector.DeadLetter) error {
	if l.Insert != collector.InsertPredictions {
		return fmt.Errorf("drive dead letter %s without features: it is no prediction that the store lacks (%s): %w", l.ID, l.Insert, collector.ErrRefused)
	}
	p, err := collector.DecodePrediction(l.Payload)
	if err != nil {
		return err
	}
	p.Features, p.Capture = collector.Columns{}, "cut"
	l.Payload = collector.AppendPrediction(nil, p)
	return nil
}

func (s *server) deleteDead(r api.DriveRequest) (int, error) {
	ids, err := s.named(r)
	if err != nil {
		return 0, err
	}
	n, err := s.dead.Delete(ids)
	if n > 0 {
		s.log.Warn("dead letters deleted: they will never be stored", "letters", n)
	}
	return n, err
}
