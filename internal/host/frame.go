package host

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	zeroMAC   = net.HardwareAddr{0, 0, 0, 0, 0, 0}
	allNodes  = netip.MustParseAddr("ff02::1")
)

// Flags of a neighbor advertisement (RFC 4861, 4.4).
const (
	flagRouter   = 0x80
	flagOverride = 0x20
)

// claim is what one frame on the link says about an address: that mac has it,
// or that mac wants to have it.
type claim struct {
	addr  netip.Addr
	mac   net.HardwareAddr
	probe bool // it wants to have it, if nobody objects
}

// probeFrame builds the question whether anybody uses the address: an ARP probe
// (RFC 5227, 2.1.1) or the neighbor solicitation of duplicate address detection
// (RFC 4862, 5.4.2).
func probeFrame(from net.HardwareAddr, a netip.Addr) ([]byte, error) {
	if a.Is4() {
		return arpFrame(from, layers.ARPRequest, netip.IPv4Unspecified(), zeroMAC, a)
	}
	return ndpFrame(from, netip.IPv6Unspecified(), solicitedNode(a),
		layers.ICMPv6TypeNeighborSolicitation,
		&layers.ICMPv6NeighborSolicitation{TargetAddress: a.AsSlice()})
}

// announceFrames builds the frames that say that the address is at from:
// gratuitous ARP as request and as reply, because equipment exists that hears
// only one of them, or one unsolicited neighbor advertisement (RFC 4861, 7.2.6).
func announceFrames(from net.HardwareAddr, a netip.Addr, router bool) ([][]byte, error) {
	if a.Is4() {
		request, err := arpFrame(from, layers.ARPRequest, a, zeroMAC, a)
		if err != nil {
			return nil, err
		}
		reply, err := arpFrame(from, layers.ARPReply, a, broadcast, a)
		return [][]byte{request, reply}, err
	}
	flags := uint8(flagOverride)
	if router {
		flags |= flagRouter
	}
	frame, err := ndpFrame(from, a, allNodes, layers.ICMPv6TypeNeighborAdvertisement,
		&layers.ICMPv6NeighborAdvertisement{
			Flags: flags, TargetAddress: a.AsSlice(),
			Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: from}},
		})
	return [][]byte{frame}, err
}

func arpFrame(from net.HardwareAddr, op uint16, sender netip.Addr, to net.HardwareAddr, target netip.Addr) ([]byte, error) {
	return serialize(
		&layers.Ethernet{SrcMAC: from, DstMAC: broadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4,
			HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
			SourceHwAddress: from, SourceProtAddress: sender.AsSlice(),
			DstHwAddress: to, DstProtAddress: target.AsSlice(),
		})
}

func ndpFrame(from net.HardwareAddr, src, dst netip.Addr, kind uint8, body gopacket.SerializableLayer) ([]byte, error) {
	ip := &layers.IPv6{
		Version: 6, NextHeader: layers.IPProtocolICMPv6, HopLimit: 255,
		SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
	}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, err
	}
	return serialize(
		&layers.Ethernet{SrcMAC: from, DstMAC: multicastMAC(dst), EthernetType: layers.EthernetTypeIPv6},
		ip, icmp, body)
}

func serialize(parts ...gopacket.SerializableLayer) ([]byte, error) {
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, parts...); err != nil {
		return nil, fmt.Errorf("build frame: %w", err)
	}
	return buf.Bytes(), nil
}

// solicitedNode is the multicast address of RFC 4291, 2.7.1.
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// multicastMAC is the Ethernet address of an IPv6 multicast address (RFC 2464, 7).
func multicastMAC(a netip.Addr) net.HardwareAddr {
	b := a.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// parseClaim reads one Ethernet frame; ok is false if it claims no address.
func parseClaim(frame []byte) (c claim, ok bool) {
	var eth layers.Ethernet
	if eth.DecodeFromBytes(frame, gopacket.NilDecodeFeedback) != nil {
		return claim{}, false
	}
	switch eth.EthernetType {
	case layers.EthernetTypeARP:
		return parseARP(eth.Payload)
	case layers.EthernetTypeIPv6:
		return parseNDP(eth.SrcMAC, eth.Payload)
	}
	return claim{}, false
}

func parseARP(b []byte) (claim, bool) {
	var arp layers.ARP
	if arp.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil ||
		arp.AddrType != layers.LinkTypeEthernet || arp.Protocol != layers.EthernetTypeIPv4 ||
		arp.HwAddressSize != 6 || arp.ProtAddressSize != 4 {
		return claim{}, false
	}
	sender := netip.AddrFrom4([4]byte(arp.SourceProtAddress))
	probe := sender.IsUnspecified()
	if probe {
		if arp.Operation != layers.ARPRequest {
			return claim{}, false
		}
		sender = netip.AddrFrom4([4]byte(arp.DstProtAddress))
	}
	return claim{addr: sender, mac: arp.SourceHwAddress, probe: probe}, true
}

func parseNDP(from net.HardwareAddr, b []byte) (claim, bool) {
	var ip layers.IPv6
	var icmp layers.ICMPv6
	// Neighbor discovery with a hop limit below 255 came through a router (RFC 4861, 7.1).
	if ip.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil ||
		ip.NextHeader != layers.IPProtocolICMPv6 || ip.HopLimit != 255 ||
		icmp.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback) != nil {
		return claim{}, false
	}
	switch icmp.TypeCode.Type() {
	case layers.ICMPv6TypeNeighborAdvertisement:
		var na layers.ICMPv6NeighborAdvertisement
		if na.DecodeFromBytes(icmp.Payload, gopacket.NilDecodeFeedback) != nil {
			return claim{}, false
		}
		for _, o := range na.Options {
			if o.Type == layers.ICMPv6OptTargetAddress && len(o.Data) == 6 {
				from = net.HardwareAddr(o.Data)
			}
		}
		return claimOf(na.TargetAddress, from)
	case layers.ICMPv6TypeNeighborSolicitation:
		var ns layers.ICMPv6NeighborSolicitation
		// Only with an unspecified source is it a claim; else a mere question.
		if !ip.SrcIP.IsUnspecified() || ns.DecodeFromBytes(icmp.Payload, gopacket.NilDecodeFeedback) != nil {
			return claim{}, false
		}
		c, ok := claimOf(ns.TargetAddress, from)
		c.probe = true
		return c, ok
	}
	return claim{}, false
}

func claimOf(ip net.IP, mac net.HardwareAddr) (claim, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return claim{addr: a, mac: mac}, ok && a.Is6()
}
