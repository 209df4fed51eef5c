package meta

import "fmt"

// A page of the bitmap. Its bits are those of 31 extents at 4 KiB for each bit,
// and of a whole number of them at any other BlockShift, so an extent never lies
// in two pages.
const (
	PageSize    = 4096
	BitsPerPage = 31 << (ExtentShift - MinShift)

	pageBytes = BitsPerPage / 8
	atBits    = PageSize - pageBytes // 128
)

// EncodePage returns bitmap page no in PageSize bytes. bits has those of the
// blocks from no*BitsPerPage on, the first one in the lowest bit of bits[0], at
// most BitsPerPage of them; those that are missing are 0. serial is for people
// who look at a device: any number that grows. It panics if there are too many.
func EncodePage(device [16]byte, serial uint64, no int64, bits []byte) []byte {
	if len(bits) > pageBytes {
		panic(fmt.Sprintf("meta: %d bits in a page for %d", 8*len(bits), BitsPerPage))
	}
	b := make([]byte, PageSize)
	copy(b[atBits:], bits)
	header{kindPage, device, serial, PageOffset(no)}.seal(b)
	return b
}

// DecodePage returns the bits of the block that was found in the place of page
// no; they share memory with b. After any error but ErrVersion the caller counts
// all blocks of the page as different.
func DecodePage(device [16]byte, no int64, b []byte) ([]byte, error) {
	h, err := open(b, PageSize, kindPage, PageOffset(no))
	if err != nil {
		return nil, err
	}
	if err := h.owned(device); err != nil {
		return nil, err
	}
	return b[atBits:], nil
}
