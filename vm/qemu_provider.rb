# A Vagrant provider that uses QEMU alone, without root or a daemon.  The Vagrantfile loads it:
# `vagrant up --provider uffdlab_qemu`.
#
# The guest's network reaches nothing; only ssh from a port of the host's loopback works. QEMU keeps running after
# `vagrant up`, as Vagrant's machines do; `vagrant halt` and `vagrant destroy` end it. It uses boxes made for libvirt.
require "fileutils"
require "securerandom"
require "socket"
require "tmpdir"

module UffdlabQemu
  PROGRAMS = %w[qemu-system-x86_64 qemu-img].freeze

  class Error < Vagrant::Errors::VagrantError
    def initialize(message)
      @text = message
      super()
    end

    def error_message
      @text
    end
  end

  class Plugin < Vagrant.plugin("2")
    name "uffdlab_qemu"
    provider(:uffdlab_qemu, box_format: "libvirt", parallel: false) { Provider }
    config(:uffdlab_qemu, :provider) { Config }
  end

  # kernel: path of a vmlinux or bzImage, nil for the kernel of the box; memory in MiB; accelerator: "tcg" or "kvm".
  class Config < Vagrant.plugin("2", :config)
    DEFAULTS = { kernel: nil, command_line: "root=/dev/vda rw console=ttyS0 net.ifnames=0", memory: 1024, cpus: 1,
                 accelerator: "tcg" }.freeze
    attr_accessor(*DEFAULTS.keys)

    def initialize
      DEFAULTS.each_key { |key| instance_variable_set("@#{key}", UNSET_VALUE) }
    end

    def finalize!
      DEFAULTS.each do |key, value|
        instance_variable_set("@#{key}", value) if instance_variable_get("@#{key}") == UNSET_VALUE
      end
    end

    def validate(_machine)
      wrong = []
      wrong << "kernel: there is no file #{kernel}" if kernel && !File.file?(kernel)
      wrong << "memory: #{memory} is not a positive number of MiB" unless memory.is_a?(Integer) && memory.positive?
      wrong << "cpus: #{cpus} is not a positive number of CPUs" unless cpus.is_a?(Integer) && cpus.positive?
      { "uffdlab_qemu" => wrong }
    end
  end

  class Provider < Vagrant.plugin("2", :provider)
    def self.usable?(raise_error = false)
      missing = PROGRAMS.reject { |program| Vagrant::Util::Which.which(program) }
      return true if missing.empty?
      raise Error, "#{missing.join(" and ")} not in PATH: run vm/install-packages vagrant" if raise_error

      false
    end

    def initialize(machine)
      @machine = machine
    end

    def disk = @machine.data_dir.join("disk.qcow2")
    def console = @machine.data_dir.join("console.log")
    def messages = @machine.data_dir.join("qemu.log")
    def pid_file = @machine.data_dir.join("qemu.pid")
    def port_file = @machine.data_dir.join("ssh.port")

    # Return the pid of the QEMU that runs this machine, or nil. The pid in the file may belong to another process by now.
    def pid
      number = Integer(File.read(pid_file))
      number if File.read("/proc/#{number}/cmdline").include?("file=#{disk}")
    rescue SystemCallError, ArgumentError
      nil
    end

    def state
      id = if pid then :running
           elsif @machine.id && File.exist?(disk) then :poweroff
           else Vagrant::MachineState::NOT_CREATED_ID
           end
      Vagrant::MachineState.new(id, id.to_s.tr("_", " "), "QEMU without libvirt; `vagrant destroy` removes it.")
    end

    def ssh_info
      { host: "127.0.0.1", port: Integer(File.read(port_file)) } if pid
    end

    def action(name)
      Actions.public_send(name) if Actions.respond_to?(name)
    end

    def to_s = "QEMU"
  end

  module Actions
    include Vagrant::Action::Builtin

    def self.build
      Vagrant::Action::Builder.new.tap { |builder| yield builder }
    end

    def self.up
      build do |b|
        b.use HandleBox
        b.use ConfigValidate
        b.use Provision
        b.use SyncedFolders
        b.use Create
        b.use Start
        b.use WaitForCommunicator, [:running]
      end
    end

    def self.halt
      build do |b|
        b.use GracefulHalt, :poweroff, :running
        b.use Kill
      end
    end

    def self.reload
      build do |b|
        b.use ConfigValidate
        b.use halt
        b.use up
      end
    end

    def self.destroy
      build do |b|
        b.use Call, DestroyConfirm do |env, b2|
          next unless env[:result]

          b2.use Kill
          b2.use Remove
          b2.use ProvisionerCleanup
        end
      end
    end

    def self.provision = build { |b| b.use Provision }
    def self.ssh = build { |b| b.use SSHExec }
    def self.ssh_run = build { |b| b.use SSHRun }
  end

  class Step
    def initialize(app, _env)
      @app = app
    end

    def call(env)
      run(env[:machine], env[:machine].provider, env[:ui])
      @app.call(env)
    end
  end

  # Make a disk that stores only the differences from the box's disk.  If the machine does not come up the first time, or
  # is interrupted before that, remove it again, as with libvirt. `vagrant up --no-destroy-on-error` keeps it.
  class Create < Step
    def call(env)
      @made = make(env[:machine], env[:machine].provider)
      @app.call(env)
      @made = false # a failure from now on, for example of a provisioner, keeps the machine
    end

    def recover(env)
      return unless @made && env[:destroy_on_error]

      provider = env[:machine].provider
      tail = console_tail(provider.console)
      env[:ui].error("The end of the guest's console:\n#{tail}") unless tail.empty? || env[:interrupted]
      [Kill, Remove].each { |step| step.new(->(_env) {}, env).call(env) }
    end

    private

    LINES = 10
    BEFORE = 5 # lines before a panic; its call trace alone has more than LINES lines
    BYTES = 256 << 10 # of the console to read; the guest may write any number

    def console_tail(console)
      lines = console.file? ? console.read(BYTES, [console.size - BYTES, 0].max).to_s.scrub("?").lines : []
      panic = lines.index { |line| line.include?("Kernel panic - not syncing") }
      (panic ? lines[[panic - BEFORE, 0].max, LINES] : lines.last(LINES)).join.strip
    end

    def make(machine, provider)
      return false if machine.id && File.exist?(provider.disk)

      made = Vagrant::Util::Subprocess.execute(
        "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", machine.box.directory.join("box.img").to_s,
        provider.disk.to_s
      )
      raise Error, "qemu-img could not make #{provider.disk}: #{made.stderr}" unless made.exit_code.zero?

      # From here on `vagrant destroy` finds the machine, also if this process is killed before QEMU has answered.
      machine.id = SecureRandom.uuid
      true
    end
  end

  class Start < Step
    TRIES = 5 # a free port may be in use when QEMU opens it
    SECONDS = 60
    LARGEST = 4 << 30 # bytes of any file: the guest's console output must not fill the host's disk

    def run(machine, provider, ui)
      return if provider.pid

      Provider.usable?(true)
      TRIES.times do
        port = free_port
        why = start(machine, provider, port)
        if why.nil?
          ui.info "QEMU is running; ssh is on 127.0.0.1:#{port}"
          return
        end
        next if why.include?("host forwarding rule")

        raise Error, "QEMU did not start: #{why}"
      end
      raise Error, "QEMU found no free port for ssh on 127.0.0.1 in #{TRIES} tries"
    end

    private

    def free_port
      TCPServer.open("127.0.0.1", 0) { |server| server.addr[1] }
    end

    # Return nil, or why QEMU did not start.
    def start(machine, provider, port)
      FileUtils.rm_f(provider.pid_file)
      File.write(provider.port_file, port.to_s)
      child = File.open(provider.messages, "w", 0o600) do |log|
        Process.spawn(*command(machine, provider, port), in: File::NULL, out: log, err: log, pgroup: true,
                      close_others: true, chdir: "/", rlimit_fsize: LARGEST)
      end
      ended = Process.detach(child) # Vagrant ends, QEMU keeps running
      (SECONDS * 10).times do
        return File.read(provider.messages).strip unless ended.alive?
        return nil if provider.pid

        sleep 0.1
      end
      Process.kill(:KILL, child)
      "it did not write #{provider.pid_file} within #{SECONDS} s: #{File.read(provider.messages)}"
    end

    def command(machine, provider, port)
      config = machine.provider_config
      # Under TCG the same CPU options as in uffdlab/machines/qemu/command.py.
      cpu = config.accelerator == "kvm" ? "host" : "max,la57=off,cx16=off,erms=off,fsrm=off"
      FileUtils.touch(provider.console)
      FileUtils.chmod(0o600, [provider.console, provider.disk])
      [
        "qemu-system-x86_64", "-name", "uffdlab-vagrant", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-machine", "q35", "-accel", config.accelerator == "kvm" ? "kvm" : "tcg,thread=multi", "-cpu", cpu,
        "-m", "#{config.memory}M", "-smp", config.cpus, "-pidfile", provider.pid_file,
        "-chardev", "file,id=console,path=#{provider.console}", "-serial", "chardev:console",
        "-drive", "if=virtio,format=qcow2,file=#{provider.disk}",
        # restrict: the guest can connect neither to the host nor beyond it
        "-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:#{port}-:22", "-device", "virtio-net-pci,netdev=net",
        "-device", "virtio-rng-pci", *kernel(config, machine.box.directory)
      ].map(&:to_s)
    end

    # Return the options for the kernel. Without a given kernel, a box with a boot loader (Debian's) needs none.
    def kernel(config, box)
      return ["-kernel", config.kernel, "-append", config.command_line] if config.kernel
      return [] unless box.join("vmlinuz").file?

      ["-kernel", box.join("vmlinuz"), "-initrd", box.join("initrd.img"), "-append", config.command_line]
    end
  end

  class Kill < Step
    def run(_machine, provider, _ui)
      %i[TERM KILL].each do |signal|
        pid = provider.pid or break
        Process.kill(signal, pid)
        100.times { provider.pid ? sleep(0.1) : break }
      rescue Errno::ESRCH
        break
      end
      FileUtils.rm_f([provider.pid_file, provider.port_file])
    end
  end

  class Remove < Step
    # When Vagrant stops waiting for ssh, it kills threads. A killed thread can hold the lock of the machine's entry in
    # Vagrant's index forever.
    def release(machine)
      uuid = machine.index_uuid
      machine.env.machine_index.release(Vagrant::MachineIndex::Entry.new(uuid, {})) if uuid
    end

    def run(machine, provider, _ui)
      FileUtils.rm_f([provider.disk, provider.console, provider.messages])
      release(machine)
      machine.id = nil
    end
  end
end
