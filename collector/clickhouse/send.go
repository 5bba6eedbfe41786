package clickhouse

import (
	"context"
	"errors"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// sendBlock inserts built columns under a token.
func (s *Store) sendBlock(ctx context.Context, token, statement string, cols []builder, rows int) error {
	return s.send(ctx, token, statement, func(b driver.Batch) error { return fill(b, cols, rows) })
}

// sendRows inserts rows value by value: for what comes in small numbers.
func (s *Store) sendRows(ctx context.Context, token, statement string, n int, row func(i int) []any) error {
	return s.send(ctx, token, statement, func(b driver.Batch) error {
		for i := range n {
			if err := b.Append(row(i)...); err != nil {
				return fmt.Errorf("%s: row %d: %w", title(statement), i, unencodable{err})
			}
		}
		return nil
	})
}

// send makes one insert under a token. The driver watches an insert's context
// for a moment longer than the insert and closes the connection when it ends,
// even if the connection is somebody else's by then: so it gets a context that
// follows ctx only until the insert is over.
func (s *Store) send(ctx context.Context, token, statement string, fill func(driver.Batch) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", title(statement), err)
	}
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	defer stop()
	batch, err := s.conn.PrepareBatch(withToken(own, token), statement)
	if err != nil {
		return fmt.Errorf("%s: %w", title(statement), err)
	}
	if err := fill(batch); err != nil {
		return errors.Join(err, batch.Abort())
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("%s: %w", title(statement), errors.Join(ctx.Err(), err))
	}
	return nil
}
