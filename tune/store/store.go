// Package store keeps studies of package tune in databases: in a file (SQLite), which is on a disk of the
// machine and not of the network, for the workers of one machine, or in PostgreSQL for those of several.
//
// Every method of a store is one transaction that is on the disk when it returns, so a worker, or its
// machine, may end at any time: what it had finished is kept, and what it was at is taken up by
// another one once its lease has ended by the database's clock. Leases only save work: whether a worker may
// still write is decided by the epoch of its piece, so a clock that jumps does no harm.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tune"
)

// format is the version of the tables below.
const format = 2

// tables is the schema; {int}, {blob} and {compact} are the dialect's. The one row of tune_study
// counts the changes of pieces. A transaction that makes one begins with counting it, which locks the row,
// so that changes become visible in the order of their revisions: who has read up to a revision has missed none.
const tables = `
CREATE TABLE tune_study (
	one {int} PRIMARY KEY CHECK (one = 1),
	format {int} NOT NULL,
	revision {int} NOT NULL,
	header TEXT NOT NULL -- JSON; empty until the study is begun
);
CREATE TABLE tune_pieces (
	n {int} PRIMARY KEY,
	trial {int} NOT NULL,
	seed {int} NOT NULL, -- above 0: of a repeat
	params TEXT NOT NULL, -- JSON
	origin TEXT NOT NULL,
	start {int} NOT NULL,
	until {int} NOT NULL,
	epoch {int} NOT NULL,
	worker TEXT NOT NULL,
	state TEXT NOT NULL,
	result TEXT NOT NULL, -- JSON
	measures TEXT NOT NULL, -- JSON
	error TEXT NOT NULL,
	seconds DOUBLE PRECISION NOT NULL,
	lease {int} NOT NULL, -- its end, in ms since 1970
	revision {int} NOT NULL
);
CREATE INDEX tune_pieces_revision ON tune_pieces (revision);
CREATE INDEX tune_pieces_running ON tune_pieces (lease) WHERE state = 'running';
CREATE TABLE tune_points (
	n {int} NOT NULL,
	at {int} NOT NULL,
	steps {int} NOT NULL,
	objectives TEXT NOT NULL, -- JSON
	PRIMARY KEY (n, at)
) {compact};
CREATE TABLE tune_checkpoints (trial {int} NOT NULL, seed {int} NOT NULL, checkpoint {blob} NOT NULL, PRIMARY KEY (trial, seed));
CREATE TABLE tune_queue (place {int} PRIMARY KEY, params TEXT NOT NULL);
CREATE TABLE tune_texts (name {blob} PRIMARY KEY, text {blob} NOT NULL);
`

// create makes the tables in an empty database.
func create(t transaction, dialect *strings.Replacer) error {
	for statement := range strings.SplitSeq(dialect.Replace(tables), ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := t.exec(statement); err != nil {
			return err
		}
	}
	_, err := t.exec(`INSERT INTO tune_study (one, format, revision, header) VALUES (1, $1, 0, '')`, format)
	return err
}

// checkFormat returns an error if the tables are those of another version.
func checkFormat(t transaction, name string) error {
	version := 0
	err := t.query(`SELECT format FROM tune_study`, nil, []any{&version}, func() error { return nil })
	if err == nil && version != format {
		err = &data.InputError{File: name, Problem: fmt.Sprintf("it is a study of format %d, and this carousel reads %d", version, format), Fix: "use the version of carousel that began the study"}
	}
	return err
}

// A database runs transactions. SQL is what SQLite and PostgreSQL have in common; parameters are $1, $2...
type database interface {
	// do runs f in a transaction, maybe several times, of which only the last one counts. One that only reads
	// sees one state of the database throughout.
	do(ctx context.Context, readOnly bool, f func(transaction) error) error
	// now is an expression for the time in ms since 1970 by the database's clock.
	now() string
	// shrink gives the system the room back that is no longer used, if that is much and the database can.
	shrink(ctx context.Context) error
	close() error
}

type transaction interface {
	// exec returns the number of rows that were changed.
	exec(query string, args ...any) (int64, error)
	// query calls each after each row has been scanned into dest.
	query(query string, args []any, dest []any, each func() error) error
}

// ErrNone is the cause of [Open]'s error where there is no study and none is to be made.
var ErrNone = errors.New("tune/store: there is no study")

func noStudy(name, problem, fix string) error {
	err := data.Errorf("%w", ErrNone)
	err.File, err.Problem, err.Fix = name, problem, fix
	return err
}

// Open opens the study at an address, which is a file's path, or a connection to PostgreSQL as its own
// programs take it, such as postgres://user:password@host/database. If there is none it is made if create is
// set. Several studies share a PostgreSQL database by schemas: postgres://host/database?search_path=name.
// Errors are of type *data.InputError where the address is wrong or what is there is no study, which is [ErrNone] if nothing is there.
func Open(ctx context.Context, address string, create bool) (tune.Store, error) {
	var db database
	var err error
	if isPostgres(address) {
		db, err = openPostgres(ctx, address, create)
	} else {
		db, err = openSQLite(ctx, address, create)
	}
	if err != nil {
		return nil, err
	}
	return &store{db}, nil
}

// Public returns an address as it may be shown: without a password, which the server's clients can also take from
// PGPASSWORD or a file.
func Public(address string) string {
	if !isPostgres(address) {
		return address
	}
	scheme, rest, _ := strings.Cut(address, "://")
	host, query, _ := strings.Cut(rest, "?")
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		user, _, _ := strings.Cut(host[:at], ":")
		host = user + host[at:]
	}
	settings := slices.DeleteFunc(strings.Split(query, "&"), func(one string) bool {
		name, _, _ := strings.Cut(one, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		return strings.Contains(name, "password")
	})
	if query = strings.Join(settings, "&"); query != "" {
		query = "?" + query
	}
	return scheme + "://" + host + query
}

type store struct{ db database }

func (s *store) Close() error { return s.db.close() }

func (s *store) read(ctx context.Context, f func(transaction) error) error {
	return s.db.do(ctx, true, f)
}

func (s *store) write(ctx context.Context, f func(transaction) error) error {
	return s.db.do(ctx, false, f)
}

// once is the end of a query for at most one row.
func once() error { return nil }

// changed runs a statement that must change a row, otherwise the error is refusal.
func changed(t transaction, refusal error, query string, args ...any) error {
	n, err := t.exec(query, args...)
	if err == nil && n == 0 {
		err = refusal
	}
	return err
}

// count counts a change of a piece and returns its revision.
func count(t transaction) (revision int64, err error) {
	err = t.query(`UPDATE tune_study SET revision = revision + 1 RETURNING revision`, nil, []any{&revision}, once)
	return revision, err
}

func (s *store) Header(ctx context.Context) (h *tune.Header, err error) {
	text := ""
	err = s.read(ctx, func(t transaction) error {
		return t.query(`SELECT header FROM tune_study`, nil, []any{&text}, once)
	})
	if err != nil || text == "" {
		return nil, err
	}
	h = &tune.Header{}
	return h, json.Unmarshal([]byte(text), h)
}

func (s *store) Create(ctx context.Context, h *tune.Header) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t transaction) error {
		return changed(t, tune.ErrTaken, `UPDATE tune_study SET header = $1 WHERE header = ''`, string(text))
	})
}

func (s *store) Read(ctx context.Context, since int64) (pieces []*tune.Piece, revision int64, err error) {
	err = s.read(ctx, func(t transaction) error {
		pieces = nil
		err := t.query(`SELECT revision FROM tune_study`, nil, []any{&revision}, once)
		if err != nil || revision <= since {
			return err
		}
		var p tune.Piece
		var params, result, measures string
		byN := map[int]*tune.Piece{}
		err = t.query(`SELECT n, trial, seed, params, origin, start, until, epoch, worker, state, result, measures, error, seconds
			FROM tune_pieces WHERE revision > $1 ORDER BY n`, []any{since},
			[]any{&p.N, &p.Trial, &p.Seed, &params, &p.Origin, &p.From, &p.Until, &p.Epoch, &p.Worker, (*string)(&p.State), &result, &measures, &p.Error, &p.Seconds},
			func() (err error) {
				one := p
				if one.Values, err = decodeParams(params); err != nil {
					return err
				}
				if one.Result, err = decodeNumbers(result); err != nil {
					return err
				}
				if one.Measures, err = decodeMeasures(measures); err != nil {
					return err
				}
				pieces = append(pieces, &one)
				byN[one.N] = &one
				return nil
			})
		if err != nil {
			return err
		}
		var n int
		var q tune.Point
		var objectives string
		return t.query(`SELECT n, at, steps, objectives FROM tune_points
			WHERE n IN (SELECT n FROM tune_pieces WHERE revision > $1) ORDER BY n, at`, []any{since},
			[]any{&n, &q.At, &q.Steps, &objectives}, func() (err error) {
				q.Values, err = decodeNumbers(objectives)
				byN[n].Points = append(byN[n].Points, q)
				return err
			})
	})
	return pieces, revision, err
}

func (s *store) Add(ctx context.Context, p *tune.Piece, lease time.Duration) error {
	params, err := encodeParams(p.Values)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t transaction) error {
		revision, err := count(t)
		if err != nil {
			return err
		}
		next := 0
		if err := t.query(`SELECT COALESCE(max(n) + 1, 0) FROM tune_pieces`, nil, []any{&next}, once); err != nil {
			return err
		}
		switch {
		case p.N < next:
			return tune.ErrTaken
		case p.N > next:
			return fmt.Errorf("tune: piece %d is added before piece %d", p.N, next)
		}
		_, err = t.exec(`INSERT INTO tune_pieces (n, trial, seed, params, origin, start, until, epoch, worker, state, result, measures, error, seconds, lease, revision)
			VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $9, 'null', 'null', '', 0, `+s.db.now()+` + $10, $11)`,
			p.N, p.Trial, p.Seed, params, p.Origin, p.From, p.Until, clean(p.Worker), string(p.State), lease.Milliseconds(), revision)
		return err
	})
}

func (s *store) Steal(ctx context.Context, n, epoch int, worker string, lease time.Duration) error {
	return s.write(ctx, func(t transaction) error {
		revision, err := count(t)
		if err != nil {
			return err
		}
		return changed(t, tune.ErrTaken, `UPDATE tune_pieces SET epoch = epoch + 1, worker = $1, lease = `+s.db.now()+` + $2, revision = $3
			WHERE n = $4 AND epoch = $5 AND state = 'running' AND lease <= `+s.db.now(),
			clean(worker), lease.Milliseconds(), revision, n, epoch)
	})
}

func (s *store) Expired(ctx context.Context) (list []int, err error) {
	err = s.read(ctx, func(t transaction) error {
		list = nil
		n := 0
		return t.query(`SELECT n FROM tune_pieces WHERE state = 'running' AND lease <= `+s.db.now()+` ORDER BY n`, nil, []any{&n}, func() error {
			list = append(list, n)
			return nil
		})
	})
	return list, err
}

// held is the condition under which a worker may write about piece $1, in epoch $2.
const held = ` WHERE n = $1 AND epoch = $2 AND state = 'running'`

func (s *store) Renew(ctx context.Context, n, epoch int, lease time.Duration) error {
	return s.write(ctx, func(t transaction) error {
		return changed(t, tune.ErrFenced, `UPDATE tune_pieces SET lease = `+s.db.now()+` + $3`+held, n, epoch, lease.Milliseconds())
	})
}

func (s *store) Report(ctx context.Context, n, epoch int, p tune.Point) error {
	return s.write(ctx, func(t transaction) error {
		revision, err := count(t)
		if err != nil {
			return err
		}
		if err := changed(t, tune.ErrFenced, `UPDATE tune_pieces SET revision = $3`+held, n, epoch, revision); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM tune_points WHERE n = $1 AND at >= $2`, n, p.At); err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO tune_points (n, at, steps, objectives) VALUES ($1, $2, $3, $4)`, n, p.At, p.Steps, encodeNumbers(p.Values))
		return err
	})
}

func (s *store) Checkpoint(ctx context.Context, n, epoch int, blob []byte) error {
	return s.write(ctx, func(t transaction) error {
		// The update changes nothing; it keeps others from taking the piece before this is done.
		if err := changed(t, tune.ErrFenced, `UPDATE tune_pieces SET epoch = epoch`+held, n, epoch); err != nil {
			return err
		}
		if blob == nil {
			_, err := t.exec(discard, n)
			return err
		}
		_, err := t.exec(`INSERT INTO tune_checkpoints (trial, seed, checkpoint) VALUES (
			(SELECT trial FROM tune_pieces WHERE n = $1), (SELECT seed FROM tune_pieces WHERE n = $1), $2)
			ON CONFLICT (trial, seed) DO UPDATE SET checkpoint = excluded.checkpoint`, n, blob)
		return err
	})
}

// discard removes the checkpoint of the trial or repeat of piece $1.
const discard = `DELETE FROM tune_checkpoints WHERE (trial, seed) = (SELECT trial, seed FROM tune_pieces WHERE n = $1)`

func (s *store) Restore(ctx context.Context, trial, seed int) (blob []byte, err error) {
	err = s.read(ctx, func(t transaction) error {
		blob = nil
		return t.query(`SELECT checkpoint FROM tune_checkpoints WHERE trial = $1 AND seed = $2`, []any{trial, seed}, []any{&blob}, func() error {
			if blob == nil {
				blob = []byte{} // an empty one, as SQLite's driver has it
			}
			return nil
		})
	})
	return blob, err
}

func (s *store) Finish(ctx context.Context, p *tune.Piece, ends bool) error {
	return s.write(ctx, func(t transaction) error {
		revision, err := count(t)
		if err != nil {
			return err
		}
		err = changed(t, tune.ErrFenced, `UPDATE tune_pieces SET state = $3, result = $4, measures = $5, error = $6, seconds = $7, revision = $8`+held,
			p.N, p.Epoch, string(p.State), encodeNumbers(p.Result), encodeMeasures(p.Measures), clean(p.Error), p.Seconds, revision)
		if err != nil || !ends {
			return err
		}
		_, err = t.exec(discard, p.N)
		return err
	})
}

func (s *store) Discard(ctx context.Context, pieces []int) error {
	err := s.write(ctx, func(t transaction) error {
		if _, err := count(t); err != nil { // no piece has changed, but none may begin before this is done
			return err
		}
		for list := range slices.Chunk(pieces, 1000) {
			numbers := strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]")
			if _, err := t.exec(`DELETE FROM tune_checkpoints WHERE (trial, seed) IN
				(SELECT trial, seed FROM tune_pieces GROUP BY trial, seed HAVING max(n) IN (` + numbers + `))`); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.db.shrink(ctx)
}

func (s *store) Enqueue(ctx context.Context, v tune.Values) error {
	params, err := encodeParams(v)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t transaction) error {
		if _, err := count(t); err != nil { // no piece has changed, but others must wait, for the order's sake
			return err
		}
		place := 0
		if err := t.query(`SELECT count(*) FROM tune_queue`, nil, []any{&place}, once); err != nil {
			return err
		}
		_, err := t.exec(`INSERT INTO tune_queue (place, params) VALUES ($1, $2)`, place, params)
		return err
	})
}

func (s *store) Queue(ctx context.Context) (list []tune.Values, err error) {
	err = s.read(ctx, func(t transaction) error {
		list = nil
		params := ""
		return t.query(`SELECT params FROM tune_queue ORDER BY place`, nil, []any{&params}, func() error {
			v, err := decodeParams(params)
			list = append(list, v)
			return err
		})
	})
	return list, err
}

// Names and texts are kept as bytes: PostgreSQL's texts hold no zeros, and compare as its language settings say.

func (s *store) Set(ctx context.Context, name, old, text string) error {
	return s.write(ctx, func(t transaction) error {
		query := `UPDATE tune_texts SET text = $2 WHERE name = $1 AND text = $3`
		if old == "" {
			query = `INSERT INTO tune_texts (name, text) VALUES ($1, $2)
				ON CONFLICT (name) DO UPDATE SET text = excluded.text WHERE tune_texts.text = $3`
		}
		return changed(t, tune.ErrTaken, query, []byte(name), []byte(text), []byte(old))
	})
}

func (s *store) Get(ctx context.Context, name string) (string, error) {
	var text []byte
	err := s.read(ctx, func(t transaction) error {
		text = nil
		return t.query(`SELECT text FROM tune_texts WHERE name = $1`, []any{[]byte(name)}, []any{&text}, once)
	})
	return string(text), err
}
