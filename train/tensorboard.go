package train

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"
)

// events writes a TensorBoard event file: TFRecord framing around Event
// messages of tensorflow/core/util/event.proto, of which only scalars are needed.
type events struct {
	f    *os.File
	w    *bufio.Writer
	last int   // step of the last training scalars
	err  error // the first one; later calls do nothing
}

// openEvents begins a new file in dir. TensorBoard reads all files of a
// directory; from step on, this one replaces the values of earlier ones.
func openEvents(dir string, step int) (*events, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	now := time.Now()
	for try := 0; ; try++ {
		name := fmt.Sprintf("events.out.tfevents.%010d.carousel.%d", now.Unix(), try)
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		e := &events{f: f, w: bufio.NewWriter(f), last: step}
		e.record(append(eventHead(now, 0), field(nil, 3, "brain.Event:2")...)) // file_version
		e.record(append(eventHead(now, step), field(nil, 7, "\x08\x01")...))   // session_log { status: START }
		return e, e.flush()
	}
}

// scalar adds one point of the curve tag.
func (e *events) scalar(tag string, step int, v float64) {
	value := field(nil, 1, tag)
	value = append(value, 2<<3|5) // simple_value, a float
	value = binary.LittleEndian.AppendUint32(value, math.Float32bits(float32(v)))
	e.record(append(eventHead(time.Now(), step), field(nil, 5, field(nil, 1, value))...))
}

// eventHead is the fields wall_time, a double, and step.
func eventHead(now time.Time, step int) []byte {
	b := []byte{1<<3 | 1}
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(now.UnixNano())/1e9))
	if step != 0 {
		b = binary.AppendUvarint(append(b, 2<<3), uint64(step))
	}
	return b
}

// field appends a length-delimited field of the protobuf wire format.
func field[S string | []byte](b []byte, number byte, s S) []byte {
	b = binary.AppendUvarint(append(b, number<<3|2), uint64(len(s)))
	return append(b, s...)
}

// record frames a message: length, checksum of the length, message, checksum of the message.
func (e *events) record(msg []byte) {
	if e.err != nil {
		return
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(msg)))
	b = binary.LittleEndian.AppendUint32(b, maskedCRC(b))
	b = append(b, msg...)
	b = binary.LittleEndian.AppendUint32(b, maskedCRC(msg))
	_, e.err = e.w.Write(b)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC is TFRecord's checksum: a CRC masked so that it may itself be part
// of checksummed data.
func maskedCRC(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

func (e *events) flush() error {
	if e.err == nil {
		e.err = e.w.Flush()
	}
	return e.err
}

func (e *events) close() error {
	err := e.flush()
	if cerr := e.f.Close(); err == nil {
		err = cerr
	}
	return err
}
