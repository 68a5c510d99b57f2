package data

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// parquetFile is an open Parquet file and its leaf columns.
type parquetFile struct {
	path   string
	packed *parquet.File // as it is
	file   *parquet.File // its footer, for pages that a pageReader has decompressed
	leaves []*parquet.Column
	names  []string // nested names are joined with dots
}

// guardParquet turns a panic of the Parquet library, which occurs for some
// damaged files, into an error.
func guardParquet(path string, err *error) {
	if r := recover(); r != nil {
		*err = damagedParquet(path, r)
	}
}

func damagedParquet(path string, why any) *InputError {
	return &InputError{File: path, Problem: fmt.Sprintf("is a damaged Parquet file: %v", why), Fix: "write it again"}
}

func openParquet(src *source) (*parquetFile, error) {
	path, at, size := src.name, src.at, int64(0)
	if src.gzip != nil || src.file == nil {
		all, err := io.ReadAll(src.text)
		if err != nil {
			return nil, unreadable(path, err)
		}
		at, size = bytes.NewReader(all), int64(len(all))
	} else {
		info, err := src.file.Stat()
		if err != nil {
			return nil, unreadable(path, err)
		}
		size = info.Size()
	}
	if err := checkFooter(at, size); err != nil {
		return nil, damagedParquet(path, err)
	}
	packed, err := parquet.OpenFile(at, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err == nil {
		err = checkRows(packed)
	}
	if err != nil {
		return nil, damagedParquet(path, err)
	}
	p := &parquetFile{path: path, packed: packed}
	if p.file, err = unpacked(packed); err != nil {
		return nil, damagedParquet(path, err)
	}
	p.collect(p.file.Root())
	return p, nil
}

// collect adds the leaves below a column.
func (p *parquetFile) collect(c *parquet.Column) {
	if c.Leaf() {
		p.leaves = append(p.leaves, c)
		p.names = append(p.names, strings.Join(c.Path(), "."))
		return
	}
	for _, child := range c.Columns() {
		p.collect(child)
	}
}

// readParquet reads LayoutLong and LayoutColumns.
func readParquet(src *source, o *ReadOptions) (t *table, err error) {
	path := src.name
	defer guardParquet(path, &err)
	p, err := openParquet(src)
	if err != nil {
		return nil, err
	}
	if len(p.leaves) == 0 {
		return nil, &InputError{File: path, Problem: "has no columns", Fix: "columns of values are needed"}
	}
	s, err := selectColumns(path, p.names, o, false)
	if err != nil {
		return nil, err
	}
	t = newTable(path, s, o)
	t.byRow = true
	t.numbers.set(o.Decimal)
	for i, at := range s.values {
		if t.values[i], err = p.numbers(at, t.numbers); err != nil {
			return nil, err
		}
	}
	for row := range len(t.values[0]) {
		t.line = append(t.line, row+1)
	}
	if s.time >= 0 {
		if err := p.times(s.time, t); err != nil {
			return nil, err
		}
	}
	if s.id >= 0 {
		if err := p.texts(s.id, func(row int, text string) error {
			if !t.addID(strings.TrimSpace(text)) {
				return p.fault(row, s.id, "the series' id is missing", "every row needs one")
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	for i, at := range s.static {
		if err := p.texts(at, func(_ int, text string) error {
			t.static[i].add(strings.TrimSpace(text))
			return nil
		}); err != nil {
			return nil, err
		}
	}
	for i, at := range s.spare {
		if err := p.spare(at, t.spare[i]); err != nil {
			return nil, err
		}
	}
	t.seal()
	if err := p.checkLengths(t); err != nil {
		return nil, err
	}
	columns := make([]*numberColumn, len(p.names))
	for i, at := range s.values {
		columns[at] = t.numbers.columns[i]
	}
	return t, t.settleNumbers(columns, s, o)
}

// checkLengths returns an error for a file whose columns differ in length.
func (p *parquetFile) checkLengths(t *table) error {
	n, same := len(t.line), true
	for _, v := range t.values {
		same = same && len(v) == n
	}
	for _, s := range t.static {
		same = same && s.len() == n
	}
	same = same && (t.id == nil || len(t.id) == n) && (t.times == nil || t.times.len() == n) && (t.stamps == nil || len(t.stamps) == n)
	if !same {
		return damagedParquet(p.path, "columns of different lengths")
	}
	return nil
}

func (p *parquetFile) fault(row, at int, problem, fix string) error {
	return &InputError{File: p.path, Line: row + 1, Column: p.names[at], Problem: problem, Fix: fix, rows: true}
}

// each calls f for every value of a column; a value is valid during the call.
func (p *parquetFile) each(at int, f func(row int, v parquet.Value) error) error {
	leaf := p.leaves[at]
	if leaf.MaxRepetitionLevel() > 0 {
		return &InputError{File: p.path, Column: p.names[at], Problem: "holds a list in each row, not a value", Fix: "name another column"}
	}
	buffer := make([]parquet.Value, 1024)
	row := 0
	for group := range p.file.RowGroups() {
		pages, err := p.pages(at, group)
		if err != nil {
			return damagedParquet(p.path, err)
		}
		values := parquet.NewColumnChunkValueReader(pages)
		for {
			n, err := values.ReadValues(buffer)
			for _, v := range buffer[:n] {
				if err := f(row, v); err != nil {
					values.Close()
					return err
				}
				row++
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				values.Close()
				return damagedParquet(p.path, err)
			}
		}
		values.Close()
	}
	return nil
}

// logical returns a column's logical type, nil if it has none.
func (p *parquetFile) logical(at int) format.LogicalTypeValue {
	if t := p.leaves[at].Type().LogicalType(); t != nil {
		return t.Value
	}
	return nil
}

// numbers reads a column of numbers; null and NaN are missing.
func (p *parquetFile) numbers(at int, text *numbers) ([]float64, error) {
	column := text.column(p.names[at], true)
	logical := p.logical(at)
	switch logical.(type) {
	case *format.TimestampType, *format.DateType, *format.TimeType, *format.UUIDType:
		return nil, &InputError{File: p.path, Column: p.names[at], Problem: fmt.Sprintf("holds %v, not numbers", logical), Fix: "name a numeric column"}
	}
	var out []float64
	err := p.each(at, func(row int, v parquet.Value) error {
		x, fault := number(v, logical, func(s string) (float64, *cellFault) { return text.parse(column, row, row+1, s) })
		switch {
		case fault != nil:
		case math.IsInf(x, 0):
			fault = &cellFault{"the value is infinite, a finite number is needed", "correct it or leave it out"}
		case math.Abs(x) > largest:
			fault = tooLarge(strconv.FormatFloat(x, 'g', -1, 64))
		}
		if fault != nil {
			return p.fault(row, at, fault.problem, fault.fix)
		}
		out = append(out, x)
		return nil
	})
	return out, err
}

// number returns the float64 nearest to a value.
func number(v parquet.Value, logical format.LogicalTypeValue, text func(string) (float64, *cellFault)) (float64, *cellFault) {
	if v.IsNull() {
		return math.NaN(), nil
	}
	scale := 1.0
	decimal, isDecimal := logical.(*format.DecimalType)
	if isDecimal {
		scale = math.Pow10(int(decimal.Scale))
	}
	switch v.Kind() {
	case parquet.Boolean:
		if v.Boolean() {
			return 1, nil
		}
		return 0, nil
	case parquet.Int32:
		if unsigned(logical) {
			return float64(v.Uint32()), nil
		}
		return float64(v.Int32()) / scale, nil
	case parquet.Int64:
		if unsigned(logical) {
			return float64(v.Uint64()), nil
		}
		return float64(v.Int64()) / scale, nil
	case parquet.Float:
		return float64(v.Float()), nil
	case parquet.Double:
		return v.Double(), nil
	case parquet.ByteArray, parquet.FixedLenByteArray:
		if isDecimal {
			x, _ := new(big.Float).SetInt(signed(v.ByteArray())).Float64()
			return x / scale, nil
		}
		if v.Kind() == parquet.ByteArray {
			return text(string(v.ByteArray()))
		}
	}
	return 0, &cellFault{fmt.Sprintf("holds %s, not numbers", v.Kind()), "name a numeric column"}
}

// signed reads a big-endian integer in two's complement.
func signed(b []byte) *big.Int {
	x := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0] >= 0x80 {
		x.Sub(x, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return x
}

// texts reads a column as text; null is empty.
func (p *parquetFile) texts(at int, f func(row int, text string) error) error {
	logical := p.logical(at)
	return p.each(at, func(row int, v parquet.Value) error {
		text, ok := textOf(v, logical)
		if !ok {
			return p.fault(row, at, fmt.Sprintf("holds %s, not text or numbers", v.Kind()), "name another column")
		}
		return f(row, text)
	})
}

// textOf returns a value as it is written in CSV, with all its digits.
func textOf(v parquet.Value, logical format.LogicalTypeValue) (text string, ok bool) {
	if v.IsNull() {
		return "", true
	}
	var whole *big.Int
	switch kind := v.Kind(); kind {
	case parquet.Boolean:
		return strconv.FormatBool(v.Boolean()), true
	case parquet.Float:
		return strconv.FormatFloat(float64(v.Float()), 'f', -1, 32), true
	case parquet.Double:
		return strconv.FormatFloat(v.Double(), 'f', -1, 64), true
	case parquet.Int32:
		whole = big.NewInt(int64(v.Int32()))
		if unsigned(logical) {
			whole.SetUint64(uint64(v.Uint32()))
		}
	case parquet.Int64:
		whole = big.NewInt(v.Int64())
		if unsigned(logical) {
			whole.SetUint64(v.Uint64())
		}
	case parquet.ByteArray, parquet.FixedLenByteArray:
		if _, decimal := logical.(*format.DecimalType); decimal {
			whole = signed(v.ByteArray())
			break
		}
		if _, uuid := logical.(*format.UUIDType); uuid && len(v.ByteArray()) == 16 {
			b := v.ByteArray()
			return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), true
		}
		return string(v.ByteArray()), kind == parquet.ByteArray
	default:
		return "", false
	}
	switch logical := logical.(type) {
	case *format.DateType:
		return stampText(stamp{wall: 86400 * whole.Int64(), offset: noOffset}), true
	case *format.TimestampType:
		return stampText(timestamp(whole.Int64(), logical)), true
	case *format.DecimalType:
		return point(whole, int(logical.Scale)), true
	}
	return whole.String(), true
}

// point writes a decimal number of that many digits after the point.
func point(whole *big.Int, scale int) string {
	if scale <= 0 {
		return whole.String()
	}
	digits := new(big.Int).Abs(whole).String()
	if lack := scale + 1 - len(digits); lack > 0 {
		digits = strings.Repeat("0", lack) + digits
	}
	sign := ""
	if whole.Sign() < 0 {
		sign = "-"
	}
	at := len(digits) - scale
	return sign + digits[:at] + "." + digits[at:]
}

// stampText writes a time that identifies a series: a date, or a date and time.
func stampText(s stamp) string {
	t := time.Unix(s.wall, int64(s.nano)).UTC()
	layout := "2006-01-02 15:04:05.999999999"
	switch {
	case s.offset != noOffset:
		layout = time.RFC3339Nano
	case s.nano == 0 && s.wall%86400 == 0:
		layout = time.DateOnly
	}
	return t.Format(layout)
}

func unsigned(logical format.LogicalTypeValue) bool {
	integer, ok := logical.(*format.IntType)
	return ok && !integer.IsSigned
}

// typedTimes reports whether the file types a column as times.
func (p *parquetFile) typedTimes(at int) bool {
	switch p.logical(at).(type) {
	case *format.DateType, *format.TimestampType:
		return true
	}
	return p.leaves[at].Type().Kind() == parquet.Int96
}

// times reads a column of times: typed ones, or text and numbers as in CSV.
func (p *parquetFile) times(at int, t *table) error {
	logical := p.logical(at)
	_, date := logical.(*format.DateType)
	stampType, typed := logical.(*format.TimestampType)
	if !p.typedTimes(at) {
		t.times = &texts{}
		return p.texts(at, func(_ int, text string) error {
			t.times.add(strings.TrimSpace(text))
			return nil
		})
	}
	t.stamps = []stamp{}
	return p.each(at, func(row int, v parquet.Value) error {
		if v.IsNull() {
			return p.fault(row, at, "the time is missing", "every row needs one")
		}
		var s stamp
		switch {
		case date:
			s = stamp{wall: 86400 * int64(v.Int32()), offset: noOffset}
		case typed:
			s = timestamp(v.Int64(), stampType)
		default: // the Julian day and the nanoseconds in it, in UTC as Spark and Impala write them
			i := v.Int96()
			nanos := int64(i[1])<<32 | int64(i[0])
			const epoch = 2440588 // January 1, 1970 as a Julian day
			s = stamp{wall: (int64(i[2])-epoch)*86400 + floorDiv(nanos, 1e9), nano: int32(nanos - 1e9*floorDiv(nanos, 1e9))}
		}
		t.stamps = append(t.stamps, s)
		return nil
	})
}

// spare reads the first rows of a column without a role, if it holds texts or
// times.
func (p *parquetFile) spare(at int, s *spareColumn) error {
	var t table
	var err error
	switch kind := p.leaves[at].Type().Kind(); {
	case p.leaves[at].MaxRepetitionLevel() > 0:
		return nil
	case p.typedTimes(at):
		if err = p.times(at, &t); err != nil {
			return nil // such as a time that is missing
		}
		s.stamps = t.stamps[:min(len(t.stamps), mostSpare)]
	case kind == parquet.ByteArray:
		err = p.texts(at, func(row int, text string) error {
			if row < mostSpare {
				s.add(strings.TrimSpace(text))
			}
			return nil
		})
	}
	return err
}

// timestamp converts a count of units since 1970, of an instant or of local
// time.
func timestamp(count int64, typ *format.TimestampType) stamp {
	unit := int64(time.Millisecond)
	if typ.Unit.Value != nil {
		unit = int64(typ.Unit.Value.Duration())
	}
	perSecond := int64(time.Second) / unit
	wall := floorDiv(count, perSecond)
	s := stamp{wall: wall, nano: int32((count - wall*perSecond) * unit), offset: noOffset}
	if typ.IsAdjustedToUTC {
		s.offset = 0
	}
	return s
}
