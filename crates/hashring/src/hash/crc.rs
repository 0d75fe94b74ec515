//! Cyclic redundancy checks, one table step a byte.

/// CRC-16/XMODEM: polynomial 0x1021, begun at 0, most significant bit first. What Redis Cluster uses.
pub(crate) fn crc16_xmodem(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| {
        let [high, _] = crc.to_be_bytes();
        (crc << 8) ^ CRC16[usize::from(high ^ byte)]
    })
}

/// The same, but what is shifted out of 16 bits stays: the low half is CRC-16, the high half its past.
pub(super) fn crc16_unmasked(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |crc: u32, &byte| {
        let [_, _, second, _] = crc.to_be_bytes();
        (crc << 8) ^ u32::from(CRC16[usize::from(second ^ byte)])
    })
}

/// CRC-32 (IEEE 802.3): polynomial 0xedb88320 reflected, begun and ended inverted.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ CRC32[usize::from(low ^ byte)]
    })
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut index = 0_u16;
    while index < 256 {
        let mut entry = index << 8;
        let mut bit = 0;
        while bit < 8 {
            entry = if entry & 0x8000 == 0 { entry << 1 } else { (entry << 1) ^ 0x1021 };
            bit += 1;
        }
        table[index as usize] = entry;
        index += 1;
    }
    table
};

const CRC32: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0_u32;
    while index < 256 {
        let mut entry = index;
        let mut bit = 0;
        while bit < 8 {
            entry = if entry & 1 == 0 { entry >> 1 } else { (entry >> 1) ^ 0xedb8_8320 };
            bit += 1;
        }
        table[index as usize] = entry;
        index += 1;
    }
    table
};

#[test]
fn the_low_half_of_the_unmasked_sum_is_xmodem() {
    assert_eq!(crc16_xmodem(b"123456789"), 0x31c3);
    assert_eq!(crc16_unmasked(b"123456789") & 0xffff, 0x31c3);
    assert_eq!(crc16_unmasked(b"ab") >> 16, u32::from(crc16_xmodem(b"a")) >> 8);
}
