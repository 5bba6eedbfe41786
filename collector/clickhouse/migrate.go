package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
)

// migrateTries bounds the attempts at one statement when migrators meet.
const migrateTries = 20

// Migrate brings the database to the present schema. Every step is idempotent
// and takes no lock, so any number of servers may run it at once.
func (s *Store) Migrate(ctx context.Context) error {
	for i, statement := range migrations() {
		steps, err := s.cluster.statements(s.withSync(statement))
		if err != nil {
			return fmt.Errorf("migrate: step %d: %w", i+1, err)
		}
		for _, step := range steps {
			if err := s.migrateStep(ctx, step); err != nil {
				return fmt.Errorf("migrate: step %d (%s): %w", i+1, title(step), unavailable(err))
			}
		}
	}
	for _, add := range []struct{ table, column string }{
		{"predictions", featureWeight}, {"predictions", attemptStatus}, {"predictions", attemptMS}, {"feedback", labelArrival},
	} {
		if err := s.addColumn(ctx, add.table, add.column); err != nil {
			return fmt.Errorf("migrate: add the column %s: %w", add.column, err)
		}
	}
	return s.checkTables(ctx)
}

// roomToAlter is what a server's disks must have free before a table is changed.
const roomToAlter = 64 << 20

// addColumn gives a table made by an earlier Pellucid a column that this one
// writes. An ALTER on a full disk leaves the table's definition empty, so it is sent
// only where the column is missing and there is room.
func (s *Store) addColumn(ctx context.Context, of, column string) error {
	name, _, _ := strings.Cut(column, " ")
	tables := []string{s.cluster.local(of)}
	if s.cluster.name != "" {
		tables = append(tables, of) // the Distributed one over it
	}
	for _, table := range tables {
		there, err := s.number(ctx, "SELECT count() FROM system.columns WHERE database = "+s.cluster.current()+" AND table = ? AND name = ?", table, name)
		if err != nil || there > 0 {
			if err != nil {
				return err
			}
			continue
		}
		free, err := s.number(ctx, "SELECT min(free_space) FROM "+s.cluster.system("disks"))
		if err != nil {
			return err
		}
		if free < roomToAlter {
			return fmt.Errorf("table %s is of an earlier version, and the server has %.0f MiB free of the %d that changing it needs", table, free/(1<<20), roomToAlter>>20)
		}
		if err := s.migrateStep(ctx, "ALTER TABLE `"+table+"`"+s.cluster.on()+" ADD COLUMN IF NOT EXISTS "+column); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// migrateStep runs one statement, again where another migrator was in its way:
// a table or view being made or not yet visible to this one.
func (s *Store) migrateStep(ctx context.Context, statement string) error {
	for try := 1; ; try++ {
		err := s.conn.Exec(ctx, statement)
		if err == nil || try == migrateTries || !passing(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try) * 20 * time.Millisecond):
		}
	}
}

// passing reports whether err can come from migrators meeting: the table exists
// (57) or does not exist yet (60), or its metadata is being replaced (319, 517).
func passing(err error) bool {
	var ex *ch.Exception
	if !errors.As(err, &ex) {
		return false
	}
	switch ex.Code {
	case 57, 60, 319, 517, 722:
		return true
	}
	return false
}

func title(statement string) string {
	head, _, _ := strings.Cut(statement, "\n")
	head, _, _ = strings.Cut(head, " (")
	return head
}
