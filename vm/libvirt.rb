# Additions to Vagrant's libvirt provider: check that libvirt can be used, replace an incomplete copy of a box's disk, and
# put the kernel where QEMU may read it.

module UffdlabLibvirt
  SOCKETS = %w[/run/libvirt/libvirt-sock /run/libvirt/virtqemud-sock].freeze
  SECONDS = 60 # the first call of a new libvirtd probes QEMU; a libvirtd that takes longer hangs

  # Return whether libvirt lets this user create machines.  The socket alone does not show this, because everybody may
  # connect to it. This runs in a separate process, because nothing can interrupt the library.
  def self.answers?
    return false unless Vagrant.has_plugin?("vagrant-libvirt") && SOCKETS.any? { |path| File.socket?(path) }

    asking = fork do
      $stderr.reopen(File::NULL) # the library also writes there why libvirt refused the connection
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

  # Vagrant uploads a box's disk once and later checks only its name. An incomplete upload has that name too, and no guest
  # can boot from it. Remove it, so that Vagrant uploads it again.
  class WholeDisk
    def initialize(app, _env)
      @app = app
    end

    def call(env)
      box = env[:machine].box
      image = box && File.join(box.directory, "box.img")
      name = "#{box.name.gsub("/", "-VAGRANTSLASH-")}_vagrant_box_image_#{box.version}_box.img" if box
      remove_incomplete(env, name, image) if image && File.exist?(image)
      @app.call(env)
    end

    private

    def remove_incomplete(env, name, image)
      pool = env[:machine].provider.driver.connection.client.lookup_storage_pool_by_name(
        env[:machine].provider_config.storage_pool_name
      )
      pool.refresh
      volume = pool.lookup_volume_by_name(name)
      size = volume.xml_desc[%r{<physical unit='bytes'>(\d+)</physical>}, 1].to_i
      return if size >= File.size(image)

      env[:ui].warn("#{name} in the storage pool is incomplete (#{size} of #{File.size(image)} bytes): uploading it again")
      volume.delete
    rescue Libvirt::RetrieveError
      nil # no such volume yet
    end
  end

  # libvirt runs QEMU as a separate user that cannot read home folders. So each start copies the kernel into the storage
  # pool, where the disk is, under the machine's name.
  module BootFiles
    PARTS = %i[kernel initrd].freeze
    CHUNK = 256 << 10 # bytes; the maximum of one libvirt message

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
      nil # it does not exist
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

    # Copy the file into the storage pool; return its path there.
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

  # `vagrant halt --force` must stop the machine at once. The provider asks the guest to shut down even then, and fails if
  # the guest does not.
  class ForceHalt
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
    # For every action: a reload also starts a machine, and Vagrant destroys a machine that does not come up.
    action_hook(:uffdlab_libvirt) do |hook|
      if Vagrant.has_plugin?("vagrant-libvirt")
        actions = VagrantPlugins::ProviderLibvirt::Action
        hook.before(actions::HandleBoxImage, WholeDisk)
        hook.before(actions::StartDomain, PutBootFiles)
        hook.before(actions::DestroyDomain, RemoveBootFiles)
      end
    end
    action_hook(:uffdlab_force_halt, :machine_action_halt) { |hook| hook.prepend(ForceHalt) }
  end
end
