# What drgn finds in a dump without debug information: the kernel's own notes, its symbols and its text, through its page tables.
import sys

from drgn import Program, ProgramFlags
from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

program = Program()
program.set_core_dump(sys.argv[1])
assert program.flags & ProgramFlags.IS_LINUX_KERNEL, "no dump of a kernel"
notes = program["VMCOREINFO"].string_().decode()
print("release", next(line for line in notes.splitlines() if line.startswith("OSRELEASE=")))
program.register_symbol_finder("kallsyms", load_vmlinux_kallsyms(program), enable_index=0)
print("banner", program.read_c_string(program.symbol("linux_banner").address).decode())
