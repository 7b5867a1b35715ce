# What Vagrant's libvirt provider leaves to the Vagrantfile: whether libvirt is to be had, a box's disk that came whole, and a
# kernel that QEMU may read.

module UffdlabLibvirt
  SOCKETS = %w[/run/libvirt/libvirt-sock /run/libvirt/virtqemud-sock].freeze
  SECONDS = 60 # the first call of a fresh libvirtd looks at QEMU; a libvirtd that hangs is none

  # Whether there is a libvirt that lets this user make machines.  Its socket alone says little: everybody may connect. Asked
  # in a process of its own, for nothing can interrupt the library.
  def self.answers?
    return false unless Vagrant.has_plugin?("vagrant-libvirt") && SOCKETS.any? { |path| File.socket?(path) }

    asking = fork do
      $stderr.reopen(File::NULL) # it says there, too, why it is not let in
      require "libvirt"
      Libvirt.open("qemu:///system").close
      exit!(0)
    rescue StandardError, LoadError
      exit!(1)
    end
    (SECONDS * 20).times do
      ended, status = Process.wait2(asking, Process::WNOHANG)
      return status.success? if ended

      sleep 0.05
    end
    Process.kill(:KILL, asking)
    Process.wait(asking)
    false
  end

  # Vagrant uploads a box's disk once and goes by its name after that. One whose upload was cut off has the name too, and no
  # guest would ever boot from it: remove it, so that it is uploaded again.
  class WholeDisk
    def initialize(app, _env)
      @app = app
    end

    def call(env)
      box = env[:machine].box
      image = box && File.join(box.directory, "box.img")
      name = "#{box.name.gsub("/", "-VAGRANTSLASH-")}_vagrant_box_image_#{box.version}_box.img" if box
      remove_torso(env, name, image) if image && File.exist?(image)
      @app.call(env)
    end

    private

    def remove_torso(env, name, image)
      pool = env[:machine].provider.driver.connection.client.lookup_storage_pool_by_name(
        env[:machine].provider_config.storage_pool_name
      )
      pool.refresh
      volume = pool.lookup_volume_by_name(name)
      size = volume.xml_desc[%r{<physical unit='bytes'>(\d+)</physical>}, 1].to_i
      return if size >= File.size(image)

      env[:ui].warn("#{name} in the storage pool is not whole (#{size} of #{File.size(image)} bytes): uploading it again")
      volume.delete
    rescue Libvirt::RetrieveError
      nil # no such volume yet
    end
  end

  # libvirt's QEMU is a user of its own, and may not look into anybody's home. So the kernel goes where the disk is, the storage
  # pool, anew at each start, under the machine's name.
  module BootFiles
    PARTS = %i[kernel initrd].freeze
    CHUNK = 256 << 10 # bytes; libvirt takes no more in one message

    def initialize(app, _env)
      @app = app
    end

    private

    def client(env) = env[:machine].provider.driver.connection.client

    def pool(env) = client(env).lookup_storage_pool_by_name(env[:machine].provider_config.storage_pool_name)

    def volume_name(env, part) = "#{client(env).lookup_domain_by_uuid(env[:machine].id).name}-#{part}"

    def delete(pool, name)
      pool.lookup_volume_by_name(name).delete
    rescue Libvirt::RetrieveError
      nil # there is none
    end
  end

  class PutBootFiles
    include BootFiles

    def call(env)
      config = env[:machine].provider_config
      PARTS.each do |part|
        path = config.public_send(part).to_s
        config.public_send("#{part}=", put(env, volume_name(env, part), path)) unless path.empty?
      end
      @app.call(env)
    end

    private

    # Where libvirt has it.
    def put(env, name, path)
      delete(pool(env), name)
      size = File.size(path)
      volume = pool(env).create_volume_xml(
        "<volume><name>#{name}</name><capacity>#{size}</capacity><target><format type='raw'/></target></volume>"
      )
      stream = client(env).stream
      volume.upload(stream, 0, size)
      File.open(path, "rb") do |file|
        while (rest = file.read(CHUNK))
          rest = rest.byteslice(stream.send(rest)..) until rest.empty?
        end
      end
      stream.finish
      volume.path
    end
  end

  class RemoveBootFiles
    include BootFiles

    def call(env)
      names = PARTS.map { |part| volume_name(env, part) }
      @app.call(env)
      names.each { |name| delete(pool(env), name) }
    end
  end

  # `vagrant halt --force` pulls the plug. The provider asks the guest to shut down even then, and fails when it does not.
  class PullPlug
    def initialize(app, _env)
      @app = app
    end

    def call(env)
      machine = env[:machine]
      if env[:force_halt] && machine.provider_name == :libvirt && machine.state.id == :running
        machine.provider.driver.connection.client.lookup_domain_by_uuid(machine.id).destroy
      end
      @app.call(env)
    end
  end

  class Plugin < Vagrant.plugin("2")
    name "uffdlab_libvirt"
    # In every action: a reload starts a machine too, and one that does not come up is destroyed.
    action_hook(:uffdlab_libvirt) do |hook|
      if Vagrant.has_plugin?("vagrant-libvirt")
        actions = VagrantPlugins::ProviderLibvirt::Action
        hook.before(actions::HandleBoxImage, WholeDisk)
        hook.before(actions::StartDomain, PutBootFiles)
        hook.before(actions::DestroyDomain, RemoveBootFiles)
      end
    end
    action_hook(:uffdlab_pull_plug, :machine_action_halt) { |hook| hook.prepend(PullPlug) }
  end
end
