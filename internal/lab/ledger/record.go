package ledger

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
)

// maxText bounds the text of a record, in bytes.
const maxText = 1024

// Record is one line of the file.
type Record struct {
	Number uint64
	Text   string
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r Record) line() string {
	body := fmt.Sprintf("%d %s", r.Number, r.Text)
	return fmt.Sprintf("%s %08x\n", body, crc32.Checksum([]byte(body), castagnoli))
}

// parse reads a line without its end.
func parse(line string) (r Record, ok bool) {
	fields := strings.Split(line, " ")
	if len(fields) != 3 || !isText(fields[1]) {
		return r, false
	}
	n, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil {
		return r, false
	}
	r = Record{n, fields[1]}
	return r, r.line() == line+"\n"
}

// isText says whether a text can stand in a record.
func isText(text string) bool {
	return text != "" && len(text) <= maxText && !strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' })
}

// Read returns the records of a file in its order, and how many lines are none.
func Read(file io.Reader) (records []Record, torn int, err error) {
	in := bufio.NewReader(file)
	for {
		line, err := in.ReadString('\n')
		whole := err == nil
		if r, ok := parse(strings.TrimSuffix(line, "\n")); ok && whole {
			records = append(records, r)
		} else if line != "" {
			torn++
		}
		if err == io.EOF {
			return records, torn, nil
		}
		if err != nil {
			return records, torn, err
		}
	}
}
