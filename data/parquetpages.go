package data

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"slices"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// The Parquet library allocates what the headers of a file ask for: the items of
// lists in the footer, the sizes of pages, the lengths of runs. One damaged bit can
// ask for gigabytes. So these headers are compared with the bytes and the rows that
// are there before the library reads them. Pages are also decompressed here: the
// library has no limit for that, and takes some of LZ4 from the wrong buffer.

// mostPage is the size limit of a page that holds texts, beside mostCell for each
// value. Writers cut pages at 1 MB, a few at 100 MB or not at all.
const (
	mostPage = 128 << 20
	mostCell = 64
)

// slackValues is by how many values a page's runs may exceed its values: packed
// groups are filled up.
const slackValues = 1024

var errCut = errors.New("ends in the middle of a header")

// checkFooter checks the footer of a file before it is decoded.
func checkFooter(r io.ReaderAt, size int64) error {
	const tail = 8 // the footer's length and the mark
	var end [tail]byte
	if size < tail {
		return fmt.Errorf("it has %d bytes", size)
	}
	if _, err := r.ReadAt(end[:], size-tail); err != nil {
		return err
	}
	length := int64(binary.LittleEndian.Uint32(end[:]))
	if length > size-tail {
		return fmt.Errorf("its footer should have %d bytes, the file has %d", length, size)
	}
	footer := make([]byte, length)
	if _, err := r.ReadAt(footer, size-tail-length); err != nil {
		return err
	}
	if _, err := thriftStruct(footer, 0); err != nil {
		return fmt.Errorf("its footer %w", err)
	}
	return nil
}

// checkRows checks that the row groups have the rows that the file claims.
func checkRows(f *parquet.File) error {
	rows := int64(0)
	for _, group := range f.RowGroups() {
		if n := group.NumRows(); n < 0 || rows+n < rows {
			return fmt.Errorf("a row group of %d rows", n)
		}
		rows += group.NumRows()
	}
	if rows != f.NumRows() {
		return fmt.Errorf("%d rows in its row groups, %d in its footer", rows, f.NumRows())
	}
	return nil
}

// unpacked opens a file that holds f's footer alone, for columns whose pages are
// read from a [pageReader].
func unpacked(f *parquet.File) (*parquet.File, error) {
	meta := *f.Metadata()
	meta.RowGroups = slices.Clone(meta.RowGroups)
	for i := range meta.RowGroups {
		group := &meta.RowGroups[i]
		group.Columns = slices.Clone(group.Columns)
		for j := range group.Columns {
			m := &group.Columns[j].MetaData
			m.Codec, m.DataPageOffset, m.DictionaryPageOffset, m.TotalCompressedSize = format.Uncompressed, 0, 0, math.MaxInt64
		}
	}
	footer, err := thrift.Marshal(new(thrift.CompactProtocol), meta)
	if err != nil {
		return nil, err
	}
	const mark = "PAR1"
	b := append([]byte(mark), footer...)
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(footer))), mark...)
	return parquet.OpenFile(bytes.NewReader(b), int64(len(b)), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
}

// pageReader is the pages of a column without lists in one row group, checked and
// decompressed, as a [parquet.ColumnChunk]. The library reads them in order.
type pageReader struct {
	*parquet.FileColumnChunk
	name  string
	codec format.CompressionCodec
	rows  int64
	left  int64             // values that further pages may have
	in    *io.SectionReader // what follows the page
	page  []byte
	at    int64 // where page stands in what is read
	buf   []byte
	zstd  *zstd.Decoder
}

// pages opens the pages of a column in a row group.
func (p *parquetFile) pages(at, group int) (*pageReader, error) {
	index := p.leaves[at].Index()
	meta := &p.packed.Metadata().RowGroups[group].Columns[index].MetaData
	rows := p.packed.RowGroups()[group].NumRows()
	if meta.NumValues != rows {
		return nil, fmt.Errorf("column %s has %d values in a row group of %d rows", p.names[at], meta.NumValues, rows)
	}
	offset := meta.DataPageOffset
	if meta.DictionaryPageOffset != 0 {
		offset = meta.DictionaryPageOffset
	}
	end := offset + meta.TotalCompressedSize
	if offset < 0 || end < offset || end > p.packed.Size() {
		return nil, fmt.Errorf("column %s lies at bytes %d to %d, the file has %d", p.names[at], offset, end, p.packed.Size())
	}
	return &pageReader{
		FileColumnChunk: p.file.RowGroups()[group].ColumnChunks()[index].(*parquet.FileColumnChunk),
		name:            p.names[at], codec: meta.Codec, rows: rows, left: rows,
		in: io.NewSectionReader(p.packed, offset, end-offset),
	}, nil
}

// Pages is what the library reads a column from.
func (c *pageReader) Pages() parquet.Pages { return c.PagesFrom(c) }

// ReadAt reads what follows the last read.
func (c *pageReader) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		from := off + int64(n) - c.at
		switch {
		case from < 0:
			return n, fmt.Errorf("column %s: its dictionary does not come first", c.name)
		case from < int64(len(c.page)):
			n += copy(b[n:], c.page[from:])
		case c.in.Size() == 0 && c.left != 0:
			return n, fmt.Errorf("the pages of column %s lack %d of %d values", c.name, c.left, c.rows)
		case c.in.Size() == 0:
			return n, io.EOF
		default:
			c.at += int64(len(c.page))
			if err := c.next(); err != nil {
				return n, fmt.Errorf("page of column %s: %w", c.name, err)
			}
		}
	}
	return n, nil
}

// next checks and decompresses a page.
func (c *pageReader) next() error {
	var h format.PageHeader
	length, err := pageHeader(c.in, &h)
	if err != nil {
		return err
	}
	packed := int64(h.CompressedPageSize)
	if packed < 0 || packed > c.in.Size()-length {
		return fmt.Errorf("should have %d bytes, %d are left", packed, c.in.Size()-length)
	}
	data := make([]byte, packed)
	if _, err := c.in.ReadAt(data, length); err != nil {
		return err
	}
	if h.CRC != 0 && crc32.ChecksumIEEE(data) != uint32(h.CRC) {
		return errors.New("its checksum is wrong")
	}
	if data, err = c.content(&h, data); err != nil {
		return err
	}
	h.CRC, h.CompressedPageSize, h.UncompressedPageSize = 0, int32(len(data)), int32(len(data))
	head, err := thrift.Marshal(new(thrift.CompactProtocol), h)
	if err != nil {
		return err
	}
	c.page = append(head, data...)
	rest := length + packed
	c.in = io.NewSectionReader(c.in, rest, c.in.Size()-rest)
	return nil
}

// content checks a page and returns it without compression.
func (c *pageReader) content(h *format.PageHeader, data []byte) ([]byte, error) {
	v1, v2, dict := h.DataPageHeader, h.DataPageHeaderV2, h.DictionaryPageHeader
	size, values, encoding := int64(h.UncompressedPageSize), int64(v1.V.NumValues), v1.V.Encoding
	switch {
	case h.Type == format.DataPage && v1.Valid && !v2.Valid && !dict.Valid:
	case h.Type == format.DataPageV2 && v2.Valid && !v1.Valid && !dict.Valid:
		values, encoding = int64(v2.V.NumValues), v2.V.Encoding
	case h.Type == format.DictionaryPage && dict.Valid && !v1.Valid && !v2.Valid:
		return c.dictionary(data, int64(dict.V.NumValues), size)
	default:
		return nil, errors.New("its header is not that of its kind")
	}
	if values < 0 || values > c.left {
		return nil, fmt.Errorf("has %d values, %d are left", values, c.left)
	}
	c.left -= values
	if most := c.most(values); size < 0 || size > most {
		return nil, fmt.Errorf("%d values in %d bytes, at most %d are expected", values, size, most)
	}
	if v2.Valid { // levels stand before what is compressed
		repetitions, definitions := int64(v2.V.RepetitionLevelsByteLength), int64(v2.V.DefinitionLevelsByteLength)
		n := repetitions + definitions
		if repetitions < 0 || definitions < 0 || n > min(size, int64(len(data))) {
			return nil, errors.New("its levels are longer than the page")
		}
		if err := runs(data[repetitions:n], c.levelBits(), values); err != nil {
			return nil, err
		}
		levels, packed := data[:n:n], data[n:]
		if !v2.V.IsCompressed.Valid || v2.V.IsCompressed.V {
			var err error
			if packed, err = c.unpack(packed, size-n); err != nil {
				return nil, err
			}
		}
		return append(levels, packed...), c.values(packed, encoding, values)
	}
	data, err := c.unpack(data, size)
	if err != nil {
		return nil, err
	}
	rest := data
	if c.levelBits() > 0 {
		var levels []byte
		if levels, rest, err = prefixed(data); err == nil && v1.V.DefinitionLevelEncoding == format.RLE {
			err = runs(levels, c.levelBits(), values)
		}
		if err != nil {
			return nil, err
		}
	}
	return data, c.values(rest, encoding, values)
}

// pageHeader reads the header at the beginning of r and returns its length.
func pageHeader(r *io.SectionReader, h *format.PageHeader) (int64, error) {
	for window := int64(1 << 10); ; window *= 4 {
		b := make([]byte, min(window, r.Size()))
		if _, err := r.ReadAt(b, 0); err != nil && err != io.EOF {
			return 0, err
		}
		rest, err := thriftStruct(b, 0)
		if err == errCut && window < r.Size() {
			continue
		}
		if err != nil {
			return 0, err
		}
		b = b[:len(b)-len(rest)]
		return int64(len(b)), thrift.Unmarshal(&thrift.CompactProtocol{}, b, h)
	}
}

// width is the size of a value in bytes, 0 for texts.
func (c *pageReader) width() int64 {
	switch c.Type().Kind() {
	case parquet.ByteArray:
		return 0
	case parquet.FixedLenByteArray:
		return int64(c.Type().Length())
	case parquet.Int96:
		return 12
	}
	return 8
}

// most is the size limit of a page.
func (c *pageReader) most(values int64) int64 {
	if c.width() == 0 {
		return mostPage + mostCell*values
	}
	const levels, headers = 2, 1 << 16
	return (max(c.width(), 4)+levels)*(values+slackValues) + headers
}

// levelBits is the size of a level, which says whether a value is there; 0 if all are.
func (c *pageReader) levelBits() int {
	return bits.Len(uint(c.Node().(*parquet.Column).MaxDefinitionLevel()))
}

func (c *pageReader) dictionary(data []byte, values, size int64) ([]byte, error) {
	if size < 0 || size > mostPage {
		return nil, fmt.Errorf("a dictionary of %d bytes, at most %d are expected", size, int64(mostPage))
	}
	data, err := c.unpack(data, size)
	if err != nil {
		return nil, err
	}
	most := int64(len(data)) // values that it can hold
	switch c.Type().Kind() {
	case parquet.Boolean:
		most *= 8
	case parquet.FixedLenByteArray:
		most /= max(c.width(), 1)
	default: // each text begins with its length, in 4 bytes
		most /= 4
	}
	if values < 0 || values > most {
		return nil, fmt.Errorf("a dictionary of %d values in %d bytes", values, len(data))
	}
	return data, nil
}

// unpack decompresses a page that should have size bytes. A result is valid until
// the next.
func (c *pageReader) unpack(data []byte, size int64) ([]byte, error) {
	if c.codec == format.Uncompressed {
		return data, nil
	}
	if int64(cap(c.buf)) < size {
		c.buf = make([]byte, size)
	}
	dst := c.buf[:size]
	from := func(r io.Reader) ([]byte, error) {
		n, err := io.ReadFull(r, dst)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return dst[:n], nil
		}
		if n, _ := r.Read(make([]byte, 1)); n > 0 {
			return nil, fmt.Errorf("more than %d bytes", size)
		}
		return dst[:n], err
	}
	switch c.codec {
	case format.Snappy:
		if n, read := binary.Uvarint(data); read <= 0 || n > uint64(size) {
			return nil, fmt.Errorf("%d bytes, %d are expected", n, size)
		}
		return parquet.Snappy.Decode(dst, data)
	case format.Gzip:
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return from(r)
	case format.Brotli:
		return from(brotli.NewReader(bytes.NewReader(data)))
	case format.Zstd:
		if c.zstd == nil {
			var err error
			if c.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true)); err != nil {
				return nil, err
			}
		}
		return c.zstd.DecodeAll(data, dst[:0:size])
	case format.Lz4Raw:
		n, err := lz4.UncompressBlock(data, dst)
		return dst[:max(n, 0)], err
	}
	return nil, fmt.Errorf("is compressed by %s, which is not supported", c.codec)
}

// prefixed splits data at the length that it begins with.
func prefixed(data []byte) (first, rest []byte, err error) {
	if len(data) < 4 {
		return nil, nil, errCut
	}
	n := int64(binary.LittleEndian.Uint32(data))
	if n > int64(len(data)-4) {
		return nil, nil, errCut
	}
	return data[4 : 4+n], data[4+n:], nil
}

// values checks the lengths that the values of a page are encoded with.
func (c *pageReader) values(data []byte, encoding format.Encoding, values int64) (err error) {
	switch encoding {
	//lint:ignore SA1019 files of older versions have the second one
	case format.RLEDictionary, format.PlainDictionary:
		if len(data) == 0 {
			return nil
		}
		return runs(data[1:], int(data[0]), values)
	case format.RLE: // of booleans; a run is counted in bits
		if len(data) <= 4 {
			return nil
		}
		if data, _, err = prefixed(data); err != nil {
			return err
		}
		return runs(data, 1, values)
	case format.DeltaBinaryPacked, format.DeltaLengthByteArray:
		_, _, err = deltas(data, values)
	case format.DeltaByteArray:
		var sizes int64
		for range 2 { // of what a text shares with the one before, and of the rest
			var sum int64
			if sum, data, err = deltas(data, values); err != nil {
				return err
			}
			if sizes += sum; sizes > mostPage+mostCell*values {
				return fmt.Errorf("%d texts of %d bytes", values, sizes)
			}
		}
	case format.ByteStreamSplit:
		if c.Type().Kind() == parquet.FixedLenByteArray && c.width()*values > mostPage {
			return fmt.Errorf("%d values of %d bytes", values, c.width())
		}
	}
	return err
}

// runs checks the lengths of runs: repeated values and packed groups of 8.
func runs(data []byte, bits int, values int64) error {
	total := uint64(0)
	for len(data) > 0 {
		head, n := binary.Uvarint(data)
		if n <= 0 {
			return errCut
		}
		data = data[n:]
		count, bytes := head>>1, uint64(bits+7)/8
		if head&1 == 1 {
			if count > uint64(len(data)) {
				// A group of 0 bits has no bytes.
				if bits > 0 || count > uint64(values) {
					return errCut
				}
			}
			bytes = count * uint64(bits)
			count *= 8
		}
		if total += count; total > uint64(values)+slackValues {
			return fmt.Errorf("a run of %d values in a page of %d", count, values)
		}
		data = data[min(bytes, uint64(len(data))):]
	}
	return nil
}

// deltas checks the header of numbers encoded by their differences, and returns
// their sum (0 if they are not 32-bit ones) and what follows them.
func deltas(data []byte, values int64) (sum int64, rest []byte, err error) {
	var head [4]uint64 // size of blocks, their parts, numbers, the first number
	at := data
	for i := range head {
		n := 0
		if head[i], n = binary.Uvarint(at); n <= 0 {
			return 0, nil, errCut
		}
		at = at[n:]
	}
	block, parts, count := head[0], head[1], head[2]
	if parts == 0 || parts > block || block > 1<<16 || count > uint64(values) {
		return 0, nil, fmt.Errorf("%d numbers in blocks of %d in a page of %d values", count, block, values)
	}
	for left := int64(count) - 1; left > 0; {
		_, n := binary.Uvarint(at) // the least difference
		if n <= 0 || uint64(len(at)-n) < parts {
			return 0, nil, errCut
		}
		widths := at[n:][:parts]
		at = at[n+int(parts):]
		for _, bits := range widths {
			if left <= 0 {
				break
			}
			left -= int64(block / parts)
			at = at[min(int(block/parts)*int(bits)/8, len(at)):]
		}
	}
	// Lengths of texts; of 64-bit numbers there may be an error, and nobody sums them.
	lengths, _ := new(delta.BinaryPackedEncoding).DecodeInt32(nil, data[:len(data)-len(at)])
	for _, n := range lengths {
		sum += int64(n)
	}
	return sum, at, nil
}

// thriftStruct checks that the lists of a structure, and all below, have an item for
// each that they announce, and returns what follows it.
func thriftStruct(b []byte, depth int) (rest []byte, err error) {
	for {
		if len(b) == 0 {
			return nil, errCut
		}
		head := b[0]
		if b = b[1:]; head == 0 {
			return b, nil
		}
		if head>>4 == 0 { // the field's number follows
			if b, _, err = thriftInt(b); err != nil {
				return nil, err
			}
		}
		if kind := head & 15; kind > 2 { // 1 and 2 are true and false
			if b, err = thriftValue(b, kind, depth); err != nil {
				return nil, err
			}
		}
	}
}

func thriftInt(b []byte) (rest []byte, v uint64, err error) {
	v, n := binary.Uvarint(b)
	if n == 0 {
		return nil, 0, errCut
	}
	if n < 0 {
		return nil, 0, errors.New("holds a number that is too large")
	}
	return b[n:], v, nil
}

// thriftValue skips a value of that kind, in the numbers of Thrift's compact form.
func thriftValue(b []byte, kind byte, depth int) (rest []byte, err error) {
	skip := func(n uint64) ([]byte, error) {
		if n > uint64(len(b)) {
			return nil, errCut
		}
		return b[n:], nil
	}
	const deepest = 64
	if depth > deepest {
		return nil, errors.New("is nested too deeply")
	}
	var n uint64
	switch kind {
	case 1, 2, 3: // truth values in lists, and bytes
		return skip(1)
	case 4, 5, 6:
		rest, _, err = thriftInt(b)
		return rest, err
	case 7:
		return skip(8)
	case 8:
		if b, n, err = thriftInt(b); err != nil {
			return nil, err
		}
		return skip(n)
	case 9, 10: // lists and sets
		if len(b) == 0 {
			return nil, errCut
		}
		kind, n = b[0]&15, uint64(b[0]>>4)
		if b = b[1:]; n == 15 {
			if b, n, err = thriftInt(b); err != nil {
				return nil, err
			}
		}
		if kind == 0 || n > uint64(len(b)) { // an item has a byte at least
			return nil, errCut
		}
		for range n {
			if b, err = thriftValue(b, kind, depth+1); err != nil {
				return nil, err
			}
		}
		return b, nil
	case 12:
		return thriftStruct(b, depth+1)
	}
	return nil, fmt.Errorf("holds a value of the unknown kind %d", kind)
}
