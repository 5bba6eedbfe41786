package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"
)

// DamagedPart is a part of a table whose bytes are not those that were written.
type DamagedPart struct {
	Table, Part string
	// Reason is the server's, which names files and checksums and no value.
	Reason string
}

// TableChecks are told of what CheckTables finds, as it finds it.
type TableChecks struct {
	// Table is called before each table, with its parts and the bytes that will be read.
	Table func(table string, parts, bytes uint64)
	// Part is called after each part, damaged where it is not whole.
	Part func(p DamagedPart, whole bool)
}

// CheckTables has the server read every part of every table of the database and hold it
// against its checksums, which else happens when a query reads it. Of a cluster it
// reads what the server that was asked has itself. It changes nothing in tables that are
// not replicated; a replicated one may fetch a damaged part anew.
func (s *Store) CheckTables(ctx context.Context, told TableChecks) error {
	type table struct {
		name         string
		parts, bytes uint64
	}
	rows, err := s.conn.Query(ctx, `SELECT name, ifNull(parts, 0), ifNull(total_bytes, 0) FROM system.tables
WHERE database = currentDatabase() AND engine LIKE '%MergeTree' ORDER BY name`)
	if err != nil {
		return fmt.Errorf("list tables: %w", unavailable(err))
	}
	var tables []table
	err = scanAll(rows, func() error {
		var t table
		if err := rows.Scan(&t.name, &t.parts, &t.bytes); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		tables = append(tables, t)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	for _, t := range tables {
		told.Table(t.name, t.parts, t.bytes)
		if err := s.checkTable(ctx, t.name, told.Part); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) checkTable(ctx context.Context, table string, told func(DamagedPart, bool)) error {
	quoted := "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(table) + "`"
	rows, err := s.conn.Query(ctx, "CHECK TABLE "+quoted+" SETTINGS check_query_single_value_result = 0")
	var ex *ch.Exception
	if errors.As(err, &ex) && ex.Code == notAllowed {
		return fmt.Errorf("check the parts of %s: the user has no right to CHECK: %w", table, err)
	}
	if err != nil {
		return fmt.Errorf("check the parts of %s: %w", table, unavailable(err))
	}
	err = scanAll(rows, func() error {
		p, whole := DamagedPart{Table: table}, false
		if err := rows.Scan(&p.Part, &whole, &p.Reason); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		told(p, whole)
		return nil
	})
	if err != nil {
		return fmt.Errorf("check the parts of %s: %w", table, err)
	}
	return nil
}
